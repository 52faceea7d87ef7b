"""What is left of a run to look at and to load: the report, the contact sheet, the list of all samples."""
