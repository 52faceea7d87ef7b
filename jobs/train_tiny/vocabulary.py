"""The words that the tiny model knows besides its subjects: settings, relations, times of day, counts, colours."""

RELATIONS = ("riding", "on", "under", "beside", "behind")
COUNTS = ("a", "two", "three", "four")
TIMES = ("day", "morning", "sunset", "night")
COLOURS = {"red": 0, "orange": 18, "yellow": 38, "green": 85, "blue": 150, "purple": 195, "pink": 225}  # hue of 255


# The word before a single subject, if it differs from the usual 'a' or 'an'.
ARTICLES = {
    "grapes": "", "fries": "", "bread": "", "cheese": "", "broccoli": "", "corn": "", "coffee": "", "santa claus": "",
    "earth": "the", "statue of liberty": "the", "moon": "the", "fire": "a",
}  # fmt: skip
PLURALS = {
    "mouse": "mice", "sheep": "sheep", "deer": "deer", "fish": "fish", "pufferfish": "pufferfish", "wolf": "wolves",
    "butterfly": "butterflies", "cherry": "cherries", "strawberry": "strawberries", "church": "churches",
    "bus": "buses", "grapes": "grapes", "fries": "fries", "octopus": "octopuses",
    "fireman": "firemen", "policeman": "policemen", "spaceman": "spacemen", "child": "children", "baby": "babies",
    "bunny": "bunnies", "lorry": "lorries", "fox": "foxes", "cactus": "cactuses",
    "bunch of grapes": "bunches of grapes", "cup of coffee": "cups of coffee", "trophy": "trophies",
    "statue of liberty": "statues of liberty", "maple leaf": "maple leaves", "broccoli": "broccoli",
    "tomato": "tomatoes", "couch": "couches", "bread": "loaves of bread",
}  # fmt: skip

# The first phrase names the setting; each says the same thing.
SETTINGS: dict[str, tuple[str, ...]] = {
    "mars": ("on mars", "on the surface of mars", "on the red planet", "in a martian landscape"),
    "moon": ("on the moon", "on the surface of the moon", "in a lunar landscape"),
    "desert": ("in the desert", "among sand dunes", "in a sandy desert"),
    "beach": ("on the beach", "on a sandy beach", "by the sea"),
    "ocean": ("on the ocean", "at sea", "on the water", "on the waves"),
    "underwater": ("underwater", "under the sea", "at the bottom of the sea"),
    "snow": ("in the snow", "in a snowy field", "in winter"),
    "forest": ("in the forest", "in the woods", "among the trees"),
    "meadow": ("in a meadow", "on the grass", "in a green field with flowers"),
    "city": ("in the city", "in front of a city skyline", "downtown"),
    "mountains": ("in the mountains", "in front of mountain peaks", "below high mountains"),
    "space": ("in space", "in outer space", "among the stars"),
    "cave": ("in a cave", "inside a dark cave", "in a cavern"),
    "volcano": ("on a volcano", "beside flowing lava", "in a volcanic landscape"),
    "kitchen": ("in the kitchen", "in a tiled kitchen"),
    "library": ("in the library", "in front of bookshelves", "in a room full of books"),
    "stage": ("on stage", "on a theatre stage", "in front of a red curtain"),
    "ice": ("on a frozen lake", "on the ice", "in the arctic"),
    "farm": ("on a farm", "in a wheat field", "on a golden field"),
    "clouds": ("above the clouds", "in the sky", "high in the air"),
}
TIME_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("", "", "", "at noon", "on a sunny day", "by day"),
    "morning": ("at sunrise", "at dawn", "in the early morning", "in the morning"),
    "sunset": ("at sunset", "at dusk", "in the evening"),
    "night": ("at night", "by night", "under a night sky", "in the dark"),
}
# Settings where the hour shows; in the others the captions don't speak of it.
OUTDOORS = frozenset(
    {"mars", "desert", "beach", "ocean", "snow", "forest", "meadow", "city", "mountains", "ice", "farm"}
)
FLOATING = frozenset({"space", "underwater", "clouds"})

RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "riding": ("riding", "riding", "riding", "riding on", "on the back of", "on"),
    "on": ("on", "on top of", "standing on", "sitting on"),
    "under": ("under", "below", "beneath", "standing under"),
    "beside": ("beside", "next to", "and", "standing beside", "by"),
    "behind": ("behind", "standing behind", "hiding behind"),
}
# The same seen from the other one: 'a rainbow over a cat'.
REVERSED_PHRASES: dict[str, tuple[str, ...]] = {
    "riding": ("carrying",),
    "on": (),
    "under": ("over", "above"),
    "beside": ("beside", "next to", "and"),
    "behind": ("in front of",),
}
SIZES: dict[str, tuple[str, ...]] = {"small": ("small", "little", "tiny"), "large": ("big", "large", "huge", "giant")}
OPENINGS = ("a photo of", "a photo of", "a picture of", "a photograph of", "an image of", "an illustration of",
            "a drawing of", "a painting of", "", "", "", "", "")  # fmt: skip
