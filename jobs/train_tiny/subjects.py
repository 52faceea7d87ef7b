"""The emoji that the tiny model knows, and what each may do in a scene."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """One emoji. `roles`: r rides, m is ridden, o is over others, s is small enough to be on things."""

    name: str
    emoji: str
    group: str
    roles: str = ""
    other_names: tuple[str, ...] = ()
    coloured: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The words for it, the usual one first."""
        return (self.name, *self.other_names)


def _subjects(group: str, table: str) -> list[Subject]:
    # A line: emoji, name[, other names] [: roles]; the role c means that it comes in colours.
    found = []
    for line in filter(None, (line.strip() for line in table.splitlines())):
        emoji, _, rest = line.partition(" ")
        names, _, roles = rest.partition(":")
        name, *others = (one.strip() for one in names.split(","))
        found.append(Subject(name, emoji, group, roles.strip(), tuple(others), "c" in roles))
    return found


SUBJECTS = tuple(
    _subjects("person", """
        🧑‍🚀 astronaut, spaceman: rs
        🧑‍🚒 firefighter, fireman: rs
        👮 police officer, policeman: rs
        🧑‍🍳 cook, chef: rs
        🧑‍🌾 farmer: rs
        👷 builder, construction worker: rs
        👸 princess, queen: rs
        🤴 prince, king: rs
        🧙 wizard: rs
        🥷 ninja: rs
        🎅 santa claus: rs
        🤡 clown: rs
        🤖 robot: rs
        👽 alien: rs
        👻 ghost: rs
        ⛄ snowman: rs
        👶 baby, child: rs
        🧜‍♀️ mermaid: s
        🧟 zombie: rs
        🧞 genie: s
        🦸 superhero: rs
        🧛 vampire: rs
        💂 guard, soldier: rs
        💃 dancer: s
    """)
    + _subjects("animal", """
        🐎 horse: m
        🐕 dog: rs
        🐈 cat: rs
        🐄 cow: m
        🐖 pig: ms
        🐑 sheep: ms
        🐐 goat: m
        🐫 camel: m
        🐘 elephant: m
        🦒 giraffe
        🦁 lion: s
        🐅 tiger: m
        🐻 bear: rs
        🐼 panda: rs
        🐨 koala: rs
        🐒 monkey: rs
        🦍 gorilla
        🦘 kangaroo
        🐇 rabbit, bunny: rs
        🐁 mouse: rs
        🐿️ squirrel: s
        🦔 hedgehog: s
        🦇 bat: o
        🦊 fox: rs
        🐺 wolf: s
        🦓 zebra: m
        🦌 deer: m
        🦄 unicorn: s
        🐉 dragon
        🦕 dinosaur: m
        🐊 crocodile: m
        🐢 turtle, tortoise: m
        🐍 snake: s
        🐸 frog: rs
        🐳 whale
        🐬 dolphin
        🦈 shark
        🐠 fish: s
        🐡 pufferfish: s
        🐙 octopus: s
        🦀 crab: s
        🐌 snail: s
        🦋 butterfly: os
        🐝 bee: os
        🐞 ladybug, ladybird: s
        🕷️ spider: s
        🦂 scorpion: s
        🐓 rooster: s
        🐔 chicken, hen: rs
        🦆 duck: s
        🦢 swan
        🦉 owl: s
        🦅 eagle: o
        🦜 parrot: s
        🦚 peacock
        🦩 flamingo
        🐧 penguin: rs
        🦛 hippo: m
        🦏 rhino: m
        🦙 llama: m
        🦭 seal: s
        🦥 sloth: s
    """)
    + _subjects("vehicle", """
        🚗 car: c
        🚕 taxi
        🚌 bus: c
        🚚 truck, lorry: c
        🚒 fire engine
        🚑 ambulance
        🚜 tractor: m
        🏍️ motorcycle, motorbike: m
        🛵 scooter: m
        🚲 bicycle, bike: m
        🛹 skateboard: m
        🚂 train, locomotive
        🛩️ airplane, plane: o
        🚁 helicopter: o
        🚀 rocket: o
        🛸 flying saucer, ufo: o
        ⛵ sailboat, sailing boat
        🚢 ship
        🛷 sled: m
        🏎️ racing car
    """)
    + _subjects("food", """
        🍎 apple: sc
        🍌 banana: s
        🍊 orange: s
        🍋 lemon: s
        🍓 strawberry: s
        🍇 grapes, bunch of grapes: s
        🍉 watermelon: s
        🍍 pineapple: s
        🍒 cherry: s
        🥕 carrot: s
        🌽 corn: s
        🥦 broccoli: s
        🍄 mushroom: s
        🎃 pumpkin: s
        🍞 bread: s
        🧀 cheese: s
        🍔 hamburger, burger: s
        🍕 pizza: s
        🌭 hot dog: s
        🌮 taco: s
        🍟 fries: s
        🍩 donut: s
        🎂 cake, birthday cake: s
        🍪 cookie: s
        🍦 ice cream: s
        🥨 pretzel: s
        🥐 croissant: s
        🥑 avocado: s
        🍆 eggplant: s
        🍅 tomato: s
        ☕ cup of coffee, coffee: s
    """)
    + _subjects("plant", """
        🌳 tree, oak tree: o
        🌲 pine tree: o
        🌴 palm tree: o
        🌵 cactus
        🌻 sunflower
        🌹 rose: s
        🌷 tulip: sc
        🍀 clover: s
        🍁 maple leaf: s
        🎄 christmas tree
        🌸 cherry blossom: s
    """)
    + _subjects("building", """
        🏠 house
        🏰 castle
        ⛪ church
        ⛺ tent
        🏭 factory
        🏥 hospital
        🗼 tower
        🗽 statue of liberty
        🏦 bank
        🏢 office building, skyscraper
        🛖 hut
        ⛲ fountain
        🎡 ferris wheel
        🎪 circus tent
        🗿 stone head
    """)
    + _subjects("thing", """
        ☂️ umbrella: oc
        🎈 balloon: osc
        📕 book: sc
        🪑 chair
        🛏️ bed
        🛋️ couch, sofa
        💡 light bulb, lamp: o
        ⏰ clock, alarm clock: s
        💻 computer, laptop
        📺 television
        📷 camera: s
        🎸 guitar: sc
        🎹 piano
        🥁 drum
        🎺 trumpet: s
        🎻 violin: s
        ⚽ ball, football: s
        🏀 basketball: s
        🧸 teddy bear: rs
        🪁 kite: o
        🎁 gift, present: s
        👑 crown: s
        🎩 hat, top hat: s
        👟 shoe: s
        🔑 key: s
        🔨 hammer: s
        ⚓ anchor
        🔭 telescope
        🕯️ candle: s
        🔔 bell: os
        🏆 trophy: s
        💎 diamond: s
        🎒 backpack: sc
        🧳 suitcase
        🚪 door
        🛁 bathtub
        🚦 traffic light
        ❤️ heart: sc
        ⭐ star: o
        🔥 fire, campfire
        🌙 moon, crescent moon: o
        ☁️ cloud: o
        🌈 rainbow: o
        🌍 earth, globe: o
    """)
)  # fmt: skip
