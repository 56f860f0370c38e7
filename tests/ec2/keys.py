"""Who asks: bake, whose calls are recorded, judged and made to fail, or the test itself."""

BAKE = "AKIABAKEBAKEBAKEBAKE"
ADMIN = "AKIAADMINADMINADMINA"
