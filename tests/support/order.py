"""The order of the integration tests, which keeps every worker busy until the end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

# Fixtures that wait for the shared base to be baked, which one worker does at the beginning.
AFTER_BASE = {"baked_home", "base_disk", "ec2_seed", "ec2_cloud_init_seed"}
# Where the time goes: seconds of a whole run, three workers on two cores. Tests that are sent to a worker together (xdist_group) have
# the name of their group. Only the order of magnitude matters; what is not here takes less than a minute.
SECONDS = {
    "test_from_a_template_to_a_group_and_back": 600,
    "test_a_cloud_image_behind_a_url": 444,
    "provision": 300,
    "test_an_instance_is_a_machine_and_its_image_starts_another": 300,
    "test_a_guest_whose_ssh_never_answers": 230,
    "test_a_system_machine_is_used_and_captured_as_any_other": 225,
    "test_what_careless_steps_leave_is_told_by_cause": 200,
    "test_the_demo_is_made_again_elsewhere_without_a_network_and_is_the_same_disk": 190,
    "test_changes_are_told_by_step_and_journals_read_as_e2fsck_does": 220,
    "test_a_full_disk_is_said_and_leaves_nothing": 209,
    "test_from_power_on_to_a_captured_disk": 190,
    "test_what_came_over_https_comes_again_and_leaves_nothing_in_the_image": 180,
    "seal": 170,
    "test_an_ordinary_user_bakes_too": 165,
    "test_trixie_under_uefi_with_a_given_identity": 152,
    "test_bookworm_under_bios_as_a_new_machine": 146,
    "test_sealed_images_come_up_as_different_machines": 116,
    "test_nothing_in_an_image_tells_that_its_machine_was_restored": 106,
    "test_a_closed_network_has_the_proxy_and_nothing_else_and_a_clock_of_its_own": 105,
    "test_what_went_past_the_proxy_is_told_and_on_record": 100,
    "test_collecting_every_layer_leaves_the_images_whole": 100,
    "test_a_secret_is_used_and_found_nowhere": 92,
    "test_other_tests_are_run_against_the_image_that_is_there": 90,
    "test_a_command_in_a_throw_away_machine_leaves_the_image_as_it_was": 80,
    "test_kill_9_at_any_stage_is_cleaned_up_by_sweep": 75,
    "test_an_image_that_fails_its_tests_is_not_registered": 74,
    "test_a_changed_last_step_goes_on_from_the_layer_before_it": 70,
    "test_machines_branch_from_a_middle_layer": 70,
    "test_the_page_is_served_to_the_host": 63,
    "test_a_matrix_makes_several_images_and_exports_them": 60,
}


def ordered(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """One test that bakes the shared base comes first, then those that can do without it, so that the other workers have something to do
    meanwhile, then the rest; each part with its longest first. Groups stay together."""
    waiting = [item for item in items if AFTER_BASE & set(getattr(item, "fixturenames", ()))]
    free = [item for item in items if item not in waiting]
    first = [item for item in waiting if "baked_home" in getattr(item, "fixturenames", ())][:1]
    rest = [item for item in waiting if item not in first]
    return [*first, *sorted(free, key=_shortness), *sorted(rest, key=_shortness)]


def _shortness(item: pytest.Item) -> int:
    """The sort key. The sort is stable: tests of equal length stay in the order of the files."""
    group = item.get_closest_marker("xdist_group")
    name = str(group.args[0]) if group else getattr(item, "originalname", item.name)
    return -SECONDS.get(name, 0)
