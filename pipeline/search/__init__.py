"""The search over the settings that students learn with."""
