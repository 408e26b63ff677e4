"""From bytes to lines, in big blocks.

Pure. The same bytes always give the same lines, which is what makes a batch that was sent before a crash the same
batch when it is sent again.
"""

from __future__ import annotations

LINE_MAX = 16 * 1024
NOTE = "[omni] {} lines dropped: written faster than they could be kept"


def whole(block: bytes, most: int) -> int:
    """How many bytes of `block` make whole lines, at most `most` lines of it.

    A line longer than LINE_MAX without an end in sight counts as whole at LINE_MAX (never inside a character), so
    that an endless line still moves on. 0: nothing yet.
    """
    end = block.rfind(b"\n") + 1
    if end == 0:
        return _character_edge(block, LINE_MAX) if len(block) >= LINE_MAX + 4 else 0
    if block.count(b"\n", 0, end) <= most:
        return end
    rest = block[:end].split(b"\n", most)[-1]
    return end - len(rest)


def split(block: bytes) -> list[str]:
    """The lines of a block that `whole` has cut: text without line ends, at most LINE_MAX bytes each."""
    text = block.decode("utf-8", "replace")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if lines and len(max(lines, key=len)) * 4 > LINE_MAX:  # replaced bytes take more room than they did before
        return [piece for line in lines for piece in _pieces(line)]
    return lines


def _pieces(line: str) -> list[str]:
    if len(line) * 4 <= LINE_MAX:
        return [line]
    data = line.encode("utf-8")
    pieces = []
    while len(data) > LINE_MAX:
        edge = _character_edge(data, LINE_MAX)
        pieces.append(data[:edge].decode("utf-8"))
        data = data[edge:]
    pieces.append(data.decode("utf-8"))
    return pieces


def _character_edge(data: bytes, at: int) -> int:
    """`at`, or up to three bytes before, so that no UTF-8 character is cut."""
    for edge in range(at, at - 4, -1):
        if edge >= len(data) or data[edge] & 0xC0 != 0x80:
            return edge
    return at
