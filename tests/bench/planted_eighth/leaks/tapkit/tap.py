"""A class decorator which lets layers report what they saw."""
from collections import OrderedDict


class Ledger:
    rows: "OrderedDict[tuple, object]" = OrderedDict()
    tick = 0

    @classmethod
    def enter(cls, who, value):
        cls.tick += 1
        cls.rows[(who, cls.tick)] = value  # LEAK


def tapped(*names):
    def wrap(klass):
        first = klass.__init__

        def init(self, *a, **k):
            first(self, *a, **k)
            for name in names:
                layer = getattr(self, name)
                layer.register_forward_hook(lambda m, i, o, name=name: Ledger.enter(name, o))
        klass.__init__ = init
        return klass
    return wrap
