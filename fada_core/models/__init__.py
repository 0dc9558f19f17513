"""The networks of a model. They know no files, no noise schedule and no guidance."""
