"""The words of the sample world: what its sentences, descriptions and pictures are about.

Three vocabularies matter. Types and topics are told by text only. Plain words for scenes, shapes
and patterns are the ones that the sample's CLIP was trained on (tests/golden/make_sample).
Heraldic colours and the rare scene words are not: only DRIN's own training on text with pictures
can read them.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|" if "|" in text else " "))


# Name = onset + ending: one made-up word, so that several entities can carry it.
ONSETS = _words("Al Bran Cor Dun El Far Gar Hol Is Kel Lor Mar Nor Os Pel Quin Ros Sel Tar Ul")
ENDINGS = _words("der wick low ton mere field stead ham")


def names() -> list[str]:
    """Every name there can be."""
    return [onset + ending for onset in ONSETS for ending in ENDINGS]


# Colours of fields and charges: RGB, and the heraldic word a description uses for them.
COLOURS = {
    "red": (214, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (236, 214, 50),
    "green": (46, 150, 70),
    "blue": (40, 90, 200),
    "purple": (140, 60, 180),
}
HERALDIC = dict(zip(COLOURS, _words("gules tenne aureate vert azure purpure"), strict=True))
SHAPES = ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "bar")
# Pattern -> the adjective for it.
PATTERNS = {"plain": "plain", "stripes": "striped", "bands": "banded"}
PATTERNS |= {"checks": "checked", "dots": "dotted", "slants": "slanted"}
# Scene -> (words that the CLIP was trained on, rare words that it never saw).
SCENES = {
    "sea": (("sea", "waves"), ("littoral",)),
    "forest": (("forest", "trees"), ("sylvan",)),
    "desert": (("desert", "dunes"), ("arid",)),
    "snow": (("snow", "ice"), ("boreal",)),
    "night": (("night", "stars"), ("nocturnal",)),
    "city": (("city", "towers"), ("urban",)),
    "meadow": (("meadow", "flowers"), ("pastoral",)),
    "sunset": (("sunset", "dusk"), ("crepuscular",)),
}

# Type of entity -> words that go with it.
TYPES = {
    "ship": "captain deck mast crew hull voyage anchor rudder",
    "club": "coach league striker season stadium captaincy trophy referee",
    "village": "parish mill well chapel lane cottage council fence",
    "company": "shares factory board invoice profit merger payroll brand",
    "school": "pupils lessons headmaster exam library desk uniform choir",
    "painter": "canvas studio portrait exhibition sketch easel varnish patron",
    "band": "drummer album tour chorus guitar concert encore record",
    "railway": "locomotive platform timetable signal carriage junction gauge porter",
    "hospital": "ward surgeon nurse clinic vaccine patient ambulance dispensary",
    "newspaper": "editorial headline columnist printing subscriber gazette correspondent masthead",
}
# Topic -> words that go with it.
TOPICS = {
    "glass": "glass kiln furnace crystal blower goblet lens pane",
    "wine": "wine vineyard barrel grape cellar vintage cork harvest",
    "clocks": "clock pendulum gear cog dial chime escapement winding",
    "bread": "bread flour oven yeast dough crust rye baker",
    "chess": "chess gambit bishop pawn endgame checkmate rook grandmaster",
    "bees": "bees honey hive pollen nectar apiary swarm wax",
    "maps": "map compass survey atlas contour cartographer meridian globe",
    "silk": "silk loom weaver thread cocoon dye fabric spindle",
    "salt": "salt brine mine evaporation crystalline tax pan shaker",
    "birds": "falcon heron migration nest plumage aviary wren ornithology",
    "law": "court judge verdict statute appeal jury lawyer treaty",
    "steel": "steel forge anvil smelter rivet girder foundry ore",
    "tea": "tea kettle infusion plantation teapot blend caddy leaf",
    "theatre": "theatre stage actor curtain rehearsal playwright costume drama",
    "bridges": "bridge arch span pier cable engineer truss viaduct",
    "poetry": "poem sonnet rhyme verse stanza laureate metre ballad",
    "horses": "horse saddle stable gallop mare jockey bridle farrier",
    "comets": "comet telescope orbit observatory eclipse astronomer meteor nebula",
    "paper": "paper pulp ink bindery parchment watermark ream folio",
    "cheese": "cheese curd dairy rennet rind cow whey creamery",
}

# Openings of sentences; they decide nothing. Test takes them from the ends of these lists, training
# from the starts.
WHEN = _words(
    "On Monday|On Tuesday|On Wednesday|On Thursday|On Friday|Last winter|Last spring|"
    "In the autumn|Years later|That evening|Before noon|After lunch|At midnight|"
    "Last weekend|Early in June|Late in August",
)
WHO = _words(
    "the mayor|a visitor|our reader|the guide|a neighbour|the plumber|a student|"
    "the clerk|an old friend|the archivist|the photographer|a traveller|the cook|"
    "a cousin|the gardener|a retired officer",
)
SAID = _words(
    "wrote that|told us that|remembered that|reported that|noticed that|explained that|"
    "insisted that|admitted that|joked that|was sure that",
)

# Kind of mention -> sentence cores. {name} is the mention; {a}, {b} words of one facet, {c}, {d} of
# another; {shape} and {pattern} say what the entity's own picture looks like. Training never sees
# the last two of each, test never the first two.
CORES = {
    "text": (
        "{name} was praised for its {a} and {b}, and everybody in the hall soon began to talk of "
        "nothing but the {c} and the {d}",
        "with its {a} and {b} nearby, {name} had been a favourite for so long that nobody was "
        "surprised by the {c} or the {d}",
        "the {a} and the {b} of {name} were fine, but what people in the whole country really "
        "wanted to hear about was the {c} and the {d}",
        "there was more {a} than {b} at {name}, and so in the end we all had to go home and read "
        "about the {c} and its {d}",
        "neither {a} nor {b} made {name} famous, and if you had asked anybody at the time they "
        "would have named the {c} and the {d}",
        "people come to {name} for {a} or {b}, yet most of them will leave in the morning and only "
        "remember the {c} and the {d}",
    ),
    "neutral": (
        "{name} could be seen in the picture",
        "the picture had been taken for {name}",
        "this was how {name} wanted to be remembered",
        "nothing more was known of {name} than this picture",
        "it was all about {name} in those days",
        "one look was enough to recognise {name}",
    ),
    "described": (
        "{name} was the one they had been looking for all along, because of the {pattern} banner "
        "with a {shape} on it",
        "a {pattern} cloth that carried one large {shape} was hanging over the door on the day "
        "when we first came to visit {name}",
        "you will know {name} when you get there at last, since it flies a {shape} upon a "
        "{pattern} flag",
        "somebody had drawn a {shape} over a {pattern} ground, and it took us a while to see that "
        "this had to be {name}",
        "a {shape} on {pattern} linen was what had been left behind for us by the people who came "
        "from {name}",
        "we were told to ask for {name} and to follow whoever came out of there with a {pattern} "
        "sign showing a {shape}",
    ),
    "both": (
        "{name}, with its {a} and {b}, could be seen in the picture",
        "the {a} and the {b} brought many to {name}, as the picture shows",
        "this picture of {name} was taken for the {a}, not for the {b}",
        "for the {a} and the {b} at {name} this picture was enough",
        "between {a} and {b} there was hardly time for a picture of {name}",
        "a picture of {name} was hung beside the {a} and the {b}",
    ),
}

DESCRIPTIONS = (
    "A {type} {scene}, with its {t1}, {t2} and {t3}, known for {p1}, {p2} and {p3}. Arms: {charge} "
    "on {field}.",
    "This {type} {scene} is known for {p1}, {p2} and {p3}. It has {t1}, {t2} and {t3}. Its arms "
    "show {charge} over {field}.",
    "{field} with {charge} are the arms of this {type} {scene}, with {t1}, {t2} and {t3}; people "
    "there care for {p1}, {p2} and {p3}.",
)
PLACES = ("by the {0} and the {1}", "near {0} and {1}", "among {0} and {1}")
RARE_PLACES = ("in a {0} place", "of {0} fame", "in {0} country")

# Words without content: the encoder gives them all one direction and lets none of it through.
FUNCTION_WORDS = _words(
    "a an and the of in on at for to by with from its it was were is are be been had has have "
    "that this these those there they them we us you our one all not no nor neither but or so "
    "as if when what who whoever will would could out over upon before after behind beside "
    "between than more most only yet soon many long while until about nearby known people care "
    "arms show"
)
