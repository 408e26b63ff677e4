"""PySyncObj's seam for a transport, put on a network that knows members by id.

Owns the translation only: nodes to ids and back. A *visitor* is a member of the cluster that this one's log does not
know: it may lead all the same (it was added while we were away), so core decides what it hears of it. In the shape of
PySyncObj's own Transport class, without being one, so that core stays the only file that imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from consensus.raft.messages import Message


class Network(Protocol):
    """What core sends through. Members are named by id; messages as PySyncObj makes them."""

    def listen(
        self, heard: Callable[[str, Message], None], up: Callable[[str], None], down: Callable[[str], None]
    ) -> None: ...
    def send(self, peer: str, message: Message) -> None: ...
    def add(self, peer: str, address: str) -> None: ...
    def drop(self, peer: str) -> None: ...
    def close(self) -> None: ...


class Wire:
    """`outgoing` sees each message before it leaves. A node has `id` and `address`."""

    ready = True

    def __init__(
        self, network: Network, outgoing: Callable[[Any, Message], None], node: Callable[[str, str], Any]
    ) -> None:
        self._network, self._outgoing, self._node = network, outgoing, node
        self._peers: dict[str, Any] = {}
        self._visitors: dict[str, Any] = {}
        self._received: Callable[[Any, Message], None] = _nobody
        self._connected: Callable[[Any], None] = _nobody
        self._disconnected: Callable[[Any], None] = _nobody
        network.listen(self._heard, self._up, self._down)

    def setOnMessageReceivedCallback(self, callback: Callable[[Any, Message], None]) -> None:  # noqa: N802
        self._received = callback

    def setOnNodeConnectedCallback(self, callback: Callable[[Any], None]) -> None:  # noqa: N802
        self._connected = callback

    def setOnNodeDisconnectedCallback(self, callback: Callable[[Any], None]) -> None:  # noqa: N802
        self._disconnected = callback

    def setOnReadonlyNodeConnectedCallback(self, callback: object) -> None:  # noqa: N802
        """There are no such nodes here."""

    setOnReadonlyNodeDisconnectedCallback = setOnReadonlyNodeConnectedCallback  # noqa: N815

    def setOnUtilityMessageCallback(self, message: str, callback: object) -> None:  # noqa: N802
        """Status, membership and transfer go through our own messages and socket."""

    def tryGetReady(self) -> None:  # noqa: N802
        """The process opens the port before it begins to tick."""

    def addNode(self, node: Any) -> None:  # noqa: N802
        self._peers[node.id] = node
        self._network.add(node.id, node.address)
        if self._visitors.pop(node.id, None) is not None:
            self._connected(node)

    def dropNode(self, node: Any) -> None:  # noqa: N802
        if self._peers.pop(node.id, None) is not None:
            self._network.drop(node.id)
            self._disconnected(node)

    def send(self, node: Any, message: Message) -> bool:
        self._outgoing(node, message)
        self._network.send(node.id, message)
        return True

    def destroy(self) -> None:
        self._network.close()

    def _heard(self, peer: str, message: Message) -> None:
        node = self._peers.get(peer) or self._visitors.get(peer)
        if node is not None:
            self._received(node, message)

    def _up(self, peer: str) -> None:
        if peer in self._peers:
            self._connected(self._peers[peer])
        else:
            self._visitors[peer] = self._node(peer, "")

    def _down(self, peer: str) -> None:
        node = self._peers.get(peer) or self._visitors.pop(peer, None)
        if node is not None:
            self._disconnected(node)


def _nobody(*_arguments: Any) -> None:
    """Before PySyncObj listens."""
