import socket
import threading

import datasets
import pytest

from ditbook.data import hub, user_images


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


def test_without_network_the_error_names_the_digits(monkeypatch):
    asked = []

    def refuse(address, timeout):
        asked.append(address)
        raise OSError("no route")

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ConnectionError, match=r"'someone/pictures'.*ditbook\.data\.digits"):
        user_images.load("someone/pictures")
    assert asked == [("huggingface.co", 443)]


def test_a_connection_that_hangs_is_given_up(monkeypatch):
    never = threading.Event()

    def hang(address, timeout):
        never.wait(5)
        return socket.socket()

    monkeypatch.setattr(hub, "PATIENCE", 0.05)
    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ConnectionError, match=r"ditbook\.data\.digits"):
        user_images.load("someone/pictures")
    never.set()


def test_a_proxy_is_asked_in_place_of_the_hub(monkeypatch, named):
    asked = []

    def accept(address, timeout):
        asked.append(address)
        return socket.socket()

    monkeypatch.setattr(hub.urllib.request, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    monkeypatch.setattr(socket, "create_connection", accept)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split, streaming: named(img=[1, 2], text=[name, split]))
    assert user_images.load("someone/pictures", split="test")["caption"] == ["someone/pictures", "test"]
    assert asked == [("proxy.example", 3128)]


def test_a_connection_lost_later_names_the_digits_too(monkeypatch):
    def lose(*_, **__):
        raise ConnectionError("lost")

    monkeypatch.setattr(hub, "_hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lose)
    with pytest.raises(ConnectionError, match=r"ditbook\.data\.digits"):
        user_images.load("someone/pictures")
