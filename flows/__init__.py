"""When things run: the flow distill-pipeline, with Prefect and without. No training code here."""
