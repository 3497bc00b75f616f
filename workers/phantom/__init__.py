"""A procedural chest radiograph: seeded, with lungs and opacities known to the pixel. No patient ever was in it."""
