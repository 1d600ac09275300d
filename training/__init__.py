"""From data to a model that thinks in four stages: scenes, structured data, SFT, rejection sampling."""
