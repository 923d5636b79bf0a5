"""Pools of names and things, and made-up words so that copying is learned and not the pool."""

import random


def word_list(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


NAMES = word_list(
    "Anna Ben Clara David Emma Felix Grace Hugo Ivy Jack Kate Liam Mia Noah Olivia Paul Quinn Rosa "
    "Sam Tara Uma Victor Wendy Xavier Yara Zack Alice Bob Carol Daniel Eva Frank Gina Henry Iris "
    "James Karen Leo Maria Nina Oscar Peter Rita Simon Tom Ursula Vera Walter Yusuf Zoe Amir Bella "
    "Carlos Diana Erik Fatima George Hana Ivan Julia Kofi Laura Marco Nadia Omar Priya Rahul Sofia "
    "Tim Lucia Mehmet Aisha Chen Kenji Ingrid Pedro Svetlana Thomas Maya Lena Jonas Elias José Zoë "
    "Jürgen Łukasz André François Søren Chloé Müller Nuñez Renée Björn"
)
SURNAMES = word_list(
    "Smith Lopez Brown Novak Rossi Weber Tanaka Silva Kim Dubois Hansen Kowalski Okafor Patel "
    "Garcia Meyer Jones Moreau Costa Larsen Fischer Haddad Ito Ricci Clark Young Baker Hill"
)
CITIES = word_list(
    "Paris London Berlin Madrid Rome Vienna Prague Lisbon Dublin Oslo Athens Warsaw Budapest "
    "Helsinki Brussels Amsterdam Zurich Geneva Milan Naples Hamburg Munich Lyon Seville Porto "
    "Krakow Tokyo Kyoto Osaka Seoul Beijing Shanghai Delhi Mumbai Bangkok Hanoi Manila Jakarta "
    "Sydney Perth Toronto Montreal Boston Chicago Denver Seattle Austin Dallas Houston Miami Lima "
    "Quito Santiago Cairo Lagos Nairobi Accra Tunis Dakar Istanbul Dubai Riga Tallinn Bergen Turin "
    "Zürich Köln Málaga Malmö Reykjavik Valencia Dresden Leipzig Bristol Leeds Glasgow "
    "Portland Phoenix Havana Bogotá Kraków Tirana Sofia Minsk Kyiv Bern Basel Nice"
)
ITEMS = word_list(
    "lamp chair table book phone laptop bicycle guitar camera watch jacket shirt hat scarf bag "
    "pencil mirror clock carpet kettle toaster blender pillow blanket sofa desk shelf vase candle "
    "radio printer keyboard monitor speaker tent helmet ball racket piano drum violin wallet belt "
    "umbrella ring necklace bottle mug plate spoon knife fork pan pot oven fridge fan heater "
    "hammer ladder bucket broom rope bench stool basket cushion curtain rug poster puzzle doll "
    "kite drill skateboard scooter backpack suitcase notebook eraser ruler stapler envelope stamp"
)
FOODS = word_list(
    "pizza pasta sushi soup bread cheese rice salad curry tacos ramen pancakes noodles dumplings "
    "apples grapes cherries honey chocolate waffles risotto paella falafel hummus lasagna "
    "omelette porridge goulash kebab mango papaya yoghurt pie cake"
)
COLOURS = word_list(
    "red blue green yellow orange purple black white brown pink grey silver turquoise violet "
    "beige crimson indigo maroon teal olive"
)
ANIMALS = word_list(
    "cat dog rabbit hamster parrot horse turtle fox owl wolf bear penguin dolphin tiger lion "
    "elephant giraffe koala llama otter goat donkey hedgehog squirrel panda whale eagle"
)
JOBS = word_list(
    "teacher nurse baker pilot farmer doctor lawyer painter driver cook engineer gardener plumber "
    "librarian musician carpenter dentist waiter tailor journalist firefighter barber"
)
HOBBIES = word_list(
    "chess tennis swimming hiking painting dancing reading football cycling knitting fishing "
    "climbing gardening sailing skiing photography yoga running"
)
EMOJI = tuple("🙂🦙🎉🚀🌍🍕🐱🐶🌈🔥⭐🌙🎵📚🍎🚲⚽🎁💡🐧🦊🌻🍓☕🏠🚗✨🎈🐢🦋🍀🧩")
FOREIGN = (
    "你好", "世界", "谢谢", "早上好", "こんにちは", "ありがとう", "안녕하세요", "привет", "мир",
    "γεια", "señor", "café", "naïve", "über", "schön", "Straße", "garçon", "mañana", "crème",
    "déjà vu", "smörgås", "Łódź", "“quoted”", "5 €", "€", "½", "100 °C", "naïveté", "São Paulo",
    "Ünlü", "ñandú", "façade", "日本", "東京", "学习", "سلام", "שלום", "नमस्ते", "élève", "Ålesund",
)  # fmt: skip

_ONSETS = word_list("b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl st tr sh th")
_VOWELS = word_list("a e i o u a e i o u ai ee oo ou")
_CODAS = ("", "", "", "n", "r", "s", "l", "k", "m", "t", "x", "nd", "rt")


def made_up(rng: random.Random) -> str:
    """A lower-case word of two or three syllables that no pool holds."""
    syllables = [
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.choice((2, 2, 2, 3)))
    ]
    return "".join(syllables)


def person(rng: random.Random) -> str:
    """A first name, sometimes with a surname, sometimes made up."""
    first = made_up(rng).capitalize() if rng.random() < 0.04 else rng.choice(NAMES)
    return f"{first} {rng.choice(SURNAMES)}" if rng.random() < 0.15 else first


def city(rng: random.Random) -> str:
    """A town, sometimes made up."""
    return made_up(rng).capitalize() if rng.random() < 0.04 else rng.choice(CITIES)


def item(rng: random.Random) -> str:
    """A thing one can buy, sometimes with a colour, sometimes made up."""
    thing = made_up(rng) if rng.random() < 0.04 else rng.choice(ITEMS)
    return f"{rng.choice(COLOURS)} {thing}" if rng.random() < 0.25 else thing


def title(rng: random.Random) -> str:
    """The name somebody gave a file, a song or a list: one or two capitalised words."""
    pool = (rng.choice(ITEMS), rng.choice(ANIMALS), rng.choice(COLOURS))
    words = rng.sample(pool, rng.choice((1, 1, 2)))
    return " ".join(word.capitalize() for word in words)


def phrase(rng: random.Random) -> str:
    """Two to four small words, as in a short note."""
    pools = (ITEMS, FOODS, COLOURS, ANIMALS, HOBBIES, ("hello", "the", "my", "see", "good", "for"))
    words = [rng.choice(rng.choice(pools)) for _ in range(rng.randint(2, 4))]
    if rng.random() < 0.03:
        words[rng.randrange(len(words))] = made_up(rng)
    return " ".join(words)


def date(rng: random.Random) -> str:
    """A calendar date, ISO style or day and month."""
    months = (
        "January", "February", "March", "April", "May", "June", "July", "August", "September",
        "October", "November", "December",
    )  # fmt: skip
    day = rng.randint(1, 28)
    if rng.random() < 0.4:
        return f"20{rng.randint(20, 39)}-{rng.randint(1, 12):02}-{day:02}"
    return f"{day} {rng.choice(months)}"


def clock_time(rng: random.Random) -> str:
    """A time of day in 24-hour form."""
    return f"{rng.randint(0, 23)}:{rng.choice(('00', '15', '30', '45'))}"
