"""What everything stands on: errors, events, values, processes, the ledger, locks, secrets, and where files lie."""
