"""Files: models as ``.npz``, states of sessions and pools."""
