"""Reports: run folders as tables, figures and pages."""
