"""The recipe of the demo model: a small Mllama, trained from nothing on scenes."""
