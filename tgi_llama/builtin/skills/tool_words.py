"""Words of which made-up tools are made."""

PLACE_TOPICS = (
    "weather", "temperature", "forecast", "population", "time zone", "air quality", "traffic",
    "humidity", "sunrise", "sunset", "altitude", "postcode", "local time", "currency", "mayor",
    "pollen count", "wind speed", "bus schedule", "metro map", "hotel list", "museum list",
    "rainfall",
    "tax rate", "festival", "airport code", "crime rate", "tide", "area code", "snow depth",
    "history",
)  # fmt: skip
THING_TOPICS = (
    "price", "stock", "weight", "colour", "size", "rating", "warranty", "manual", "maker",
    "discount",
    "barcode", "delivery date", "owner", "location", "status", "material", "age", "category",
    "review",
    "serial number", "height", "recipe", "label", "shelf", "supplier", "value", "model number",
    "length",
)  # fmt: skip
PERSON_TOPICS = (
    "phone number", "address", "birthday", "email", "job", "salary", "calendar", "office", "team",
    "manager", "profile", "balance", "order history", "contract", "shift", "room number",
    "nickname",
)  # fmt: skip
LEVELS = (
    "volume", "brightness", "temperature", "timer", "speed", "limit", "contrast", "alarm", "power",
    "heating", "fan", "budget", "zoom", "margin", "threshold", "pressure", "delay", "font size",
)  # fmt: skip
VERBS = (
    "create", "delete", "open", "close", "archive", "share", "print", "play", "stop", "start",
    "pause", "cancel", "save", "copy", "send", "rename", "lock", "export", "remove", "publish",
    "download", "upload", "restore", "check", "approve", "reject", "hide", "show",
)  # fmt: skip
OBJECTS = (
    "note", "file", "folder", "list", "event", "song", "playlist", "ticket", "report", "document",
    "photo", "album", "task", "project", "page", "channel", "recipe", "invoice", "draft", "form",
    "game", "lesson", "video", "map", "backup", "job", "account", "card",
)  # fmt: skip
UNITS = (
    "euros", "dollars", "pounds", "yen", "metres", "feet", "miles", "kilometres", "litres",
    "gallons",
    "grams", "ounces", "hours", "minutes", "kilograms", "inches",
)  # fmt: skip
LANGUAGES = ("French", "German", "Spanish", "Italian", "Polish", "Greek", "Turkish", "Japanese")
