"""A template of many images: what they look like on average, in their average shape. Rounds of cohorts and of means."""
