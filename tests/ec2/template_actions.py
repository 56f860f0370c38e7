"""Launch templates: versions by number, SourceVersion, removal of versions, pages."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateVersion
from moto.ec2.utils import generic_filter

from tests.ec2.paging import page
from tests.ec2.refusals import Refused


def version_of(self: LaunchTemplate, number: Any) -> LaunchTemplateVersion:
    """In place of moto's get_version: what is not there is refused."""
    wanted = str(number)
    if wanted.lower() == "$latest":
        return self.versions[-1]
    wanted = str(self.default_version_number) if wanted.lower() == "$default" else wanted
    for version in self.versions:
        if str(version.number) == wanted:
            return version
    raise Refused("InvalidLaunchTemplateId.VersionNotFound", f"Could not find launch template version {number} for {self.id}")


def new_version(self: LaunchTemplate, data: dict[str, Any], description: str) -> LaunchTemplateVersion:
    """In place of moto's create_version: numbers are never used again."""
    self.last_number = getattr(self, "last_number", 0) + 1
    made = LaunchTemplateVersion(self, self.last_number, data, description)
    self.versions.append(made)
    return made


def _template(self: Any) -> LaunchTemplate:
    name, template_id = self._get_param("LaunchTemplateName"), self._get_param("LaunchTemplateId")
    if bool(name) == bool(template_id):
        raise Refused("InvalidParameterCombination", "either LaunchTemplateId or LaunchTemplateName")
    return self.ec2_backend.get_launch_template(template_id) if template_id else self.ec2_backend.get_launch_template_by_name(name)


def _said(template: LaunchTemplate, version: LaunchTemplateVersion) -> dict[str, Any]:
    return {
        "CreateTime": version.create_time, "CreatedBy": "arn:aws:iam::123456789012:user/bake",
        "DefaultVersion": template.is_default(version),
        "LaunchTemplateData": version.data, "LaunchTemplateId": template.id, "LaunchTemplateName": template.name,
        "VersionDescription": version.description, "VersionNumber": version.number,
    }  # fmt: skip


def create_launch_template_version(self: Any) -> ActionResult:
    template, source = _template(self), self._get_param("SourceVersion")
    base = dict(version_of(template, source).data) if source else {}
    if self._get_param("ResolveAlias"):
        raise Refused("EmulatorDoesNot", "resolve aliases")
    self.error_on_dryrun()
    made = template.create_version({**base, **(self._get_param("LaunchTemplateData") or {})}, self._get_param("VersionDescription"))
    return ActionResult({"LaunchTemplateVersion": _said(template, made)})


def describe_launch_template_versions(self: Any) -> ActionResult:
    named = self._get_param("LaunchTemplateName") or self._get_param("LaunchTemplateId")
    wanted = self._get_param("Versions") or []
    if not named and not set(wanted) <= {"$Latest", "$Default"}:
        raise Refused("InvalidParameterValue", "without a launch template, Versions may be $Latest and $Default only")
    templates = [_template(self)] if named else list(self.ec2_backend.launch_templates.values())
    found = []
    for template in templates:
        versions = [version_of(template, number) for number in wanted] if wanted else template.versions
        found += [_said(template, version) for version in versions if self._get_int_param("MinVersion", 0) <= version.number]
    shown, token = page(found, self)
    return ActionResult({"LaunchTemplateVersions": shown, "NextToken": token})


def describe_launch_templates(self: Any) -> ActionResult:
    backend, names, ids = self.ec2_backend, self._get_param("LaunchTemplateNames") or [], self._get_param("LaunchTemplateIds") or []
    found = [backend.get_launch_template_by_name(name) for name in names] + [backend.get_launch_template(name) for name in ids]
    if not names and not ids:
        found = list(backend.launch_templates.values())
    shown, token = page(generic_filter(self._filters_from_querystring(), found), self)
    said = [
        {
            "CreateTime": one.create_time, "CreatedBy": "arn:aws:iam::123456789012:user/bake",
            "DefaultVersionNumber": one.default_version_number,
            "LatestVersionNumber": one.latest_version_number, "LaunchTemplateId": one.id, "LaunchTemplateName": one.name,
            "Tags": one.get_tags(),
        }
        for one in shown
    ]  # fmt: skip
    return ActionResult({"LaunchTemplates": said, "NextToken": token})


def delete_launch_template_versions(self: Any) -> ActionResult:
    template, gone, kept = _template(self), [], []
    self.error_on_dryrun()
    for number in self._get_param("Versions") or []:
        version = next((one for one in template.versions if str(one.number) == str(number)), None)
        said = {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "VersionNumber": int(number)}
        if version is None:
            kept.append(said | {"ResponseError": {"Code": "launchTemplateVersionDoesNotExist", "Message": f"there is no version {number}"}})
        elif template.is_default(version):
            kept.append(said | {"ResponseError": {"Code": "unexpectedError", "Message": "the default version cannot be deleted"}})
        else:
            template.versions.remove(version)
            gone.append(said)
    return ActionResult({"SuccessfullyDeletedLaunchTemplateVersions": gone, "UnsuccessfullyDeletedLaunchTemplateVersions": kept})
