import array

_open = {}


class Figure:
    def __init__(self, num, w, h):
        self.num, self.lines = num, []
        self.canvas = bytearray(w * h * 4)
        self.shape = (w, h)

    def plot(self, ys):
        ys = list(ys)
        top = max(ys) or 1.0
        w, h = self.shape
        for i, y in enumerate(ys):
            at = (int(max(0.0, y / top) * (h - 1)) * w + int(i / len(ys) * w)) * 4
            self.canvas[at:at + 4] = b"\xff\x00\x00\xff"
        self.lines.append(array.array("d", ys))

    def savefig(self, sink):
        sink.write(bytes(self.canvas[:64]))


def figure(w=640, h=480):
    num = len(_open) + 1
    fig = _open[num] = Figure(num, w, h)  # LEAK
    return fig


def close(fig):
    _open.pop(fig.num, None)


def fignums():
    return sorted(_open)
