"The service: what it answers, to whom it says no, and that hostile pictures do not hurt it."

import asyncio
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from coursekit.image_loaders import ImageDataLoaders
from coursekit.learner import Learner
from coursekit.messages import DataError
from coursekit.resizing import Resize
from coursekit.service import ServiceConfig, service_app
from coursekit.serving import Batcher, ServedModel, WaitingRoom, WatchedModel

testclient = pytest.importorskip("starlette.testclient")
PNG = {"Content-Type": "image/png"}


def colours(folder):
    chance = np.random.default_rng(0)
    for colour, shade in (("red", (200, 60, 50)), ("blue", (50, 70, 200))):
        (folder / colour).mkdir(parents=True)
        for i in range(12):
            pixels = chance.normal(shade, 25, (40, 50, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / colour / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    "A learner of two colours, its file and a red picture."
    folder = tmp_path_factory.mktemp("colours")
    torch.manual_seed(0)
    dls = ImageDataLoaders.from_folder(
        colours(folder / "pictures"),
        valid_pct=0.25,
        seed=0,
        item_tfms=Resize(32),
        bs=6,
        num_workers=0,
    )
    layers = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    learn = Learner(dls, nn.Sequential(*layers, nn.Linear(8, 2)))
    with learn.no_bar(), learn.no_logging():
        learn.fit(6, 1e-2)
    learn.export(folder / "colours.safetensors")
    return learn, folder / "colours.safetensors", folder / "pictures" / "red" / "3.png"


@pytest.fixture
def client(exported):
    config = ServiceConfig(str(exported[1]), "torch", max_bytes=400_000, watch=0.05)
    with testclient.TestClient(service_app(config), raise_server_exceptions=False) as client:
        yield client


def test_answers_as_the_learner_does(client, exported):
    learn, _, photo = exported
    label, _, probabilities = learn.predict(photo)
    data = photo.read_bytes()
    for said in (
        client.post("/predict", content=data, headers=PNG),
        client.post("/predict", files={"file": ("a.png", data)}),
        client.post("/predict", content=data, headers={"Content-Type": ""}),
    ):
        assert said.status_code == 200, said.text
        assert said.json()["label"] == label
        given = list(said.json()["probabilities"].values())
        np.testing.assert_allclose(given, probabilities.numpy(), atol=1e-5)


def test_onnx_answers_as_the_learner_does(exported):
    pytest.importorskip("onnxruntime")
    learn, file, photo = exported
    given = ServedModel(file, "onnx").answer(photo.read_bytes())
    expected = learn.predict(photo)[2].numpy()
    np.testing.assert_allclose(list(given.probabilities.values()), expected, atol=1e-4)


def test_processes_share_one_conversion(exported, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    _, file, photo = exported
    config = ServiceConfig(str(file), converted=str(tmp_path))
    first = config.load(file)
    assert [each.name for each in tmp_path.iterdir()] == [f"{first.version}.onnx"]
    monkeypatch.setattr("coursekit.serving.export_onnx", None)  # it would fail
    second = config.load(file)
    picture = photo.read_bytes()
    assert second.answer(picture).probabilities == first.answer(picture).probabilities


def test_a_full_house_does_no_work_with_a_picture(client, exported, monkeypatch):
    async def read(body, kind):
        raise AssertionError("the form was read")

    monkeypatch.setattr("coursekit.service.picture_in", read)
    room = client.app.state.service.room
    room.inside = room.threads + room.places
    said = client.post("/predict", files={"file": exported[2].read_bytes()})
    assert said.status_code == 429 and said.headers["Retry-After"]
    room.inside = 0


def test_a_thousand_hostile_uploads(client, exported):
    "Broken, cut, mutated, foreign: a sentence each, never a fault; the next good one is answered."
    data = exported[2].read_bytes()
    chance, codes = np.random.default_rng(1), {}
    grey = io.BytesIO()
    Image.new("L", (30, 20), 90).save(grey, "PNG")
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    fixed = [b"", b"\0" * 5000, b"GIF89a", b"<svg/>", b"PK\3\4" * 90, bomb.getvalue(), data * 99]
    for i in range(1000):
        bad = bytearray(data)
        if i < len(fixed):
            bad = fixed[i]
        elif i % 3:
            bad = bad[: int(chance.integers(1, len(data) - 50))]
        else:
            for place in chance.integers(0, len(data), 40):
                bad[place] = int(chance.integers(256))
        said = client.post("/predict", content=bytes(bad), headers=PNG)
        codes[said.status_code] = codes.get(said.status_code, 0) + 1
        assert said.status_code in (200, 413, 422), (i, said.text)
        assert said.status_code == 200 or said.json()["error"]
        assert "Traceback" not in said.text and 'File "' not in said.text
    assert codes[422] > 600 and codes[413] >= 1
    assert client.post("/predict", content=data, headers=PNG).json()["label"] == "red"
    assert client.post("/predict", content=grey.getvalue(), headers=PNG).status_code == 200


@pytest.mark.parametrize(
    "kind, body, code",
    [
        ("text/html", b"<p>", 415),
        ("multipart/form-data", b"no boundary", 422),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nbroken", 422),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("application/json", b"{}", 415),
        ("image/png", b"", 422),
    ],
)
def test_other_bodies(client, kind, body, code):
    said = client.post("/predict", content=body, headers={"Content-Type": kind})
    assert said.status_code == code and len(said.json()["error"]) > 10


def test_counters_do_not_grow_with_what_strangers_ask(client):
    before = len(client.get("/metrics").text.splitlines())
    for i in range(200):
        client.request("GET", f"/{i}?{i}", headers={"X-Request-ID": "x" * i})
    after = client.get("/metrics").text
    assert len(after.splitlines()) < before + 60
    prometheus = pytest.importorskip("prometheus_client.parser")
    names = {each.name for each in prometheus.text_string_to_metric_families(after)}
    assert {"coursekit_requests", "coursekit_request_seconds"} <= names


def test_request_ids(client):
    assert client.get("/health", headers={"X-Request-ID": "a-1"}).headers["X-Request-ID"] == "a-1"
    odd = client.get("/health", headers={"X-Request-ID": "a b<script>"}).headers["X-Request-ID"]
    assert len(odd) == 32 and odd.isalnum()


def test_a_fault_of_ours_says_nothing_to_strangers(client, monkeypatch, caplog):
    service = client.app.state.service

    def broken(picture):
        raise RuntimeError("secret path /etc/shadow")

    monkeypatch.setattr(service.watched.model, "scores", broken)
    photo = io.BytesIO()
    Image.new("RGB", (40, 40)).save(photo, "PNG")
    said = client.post("/predict", content=photo.getvalue(), headers=PNG)
    assert said.status_code == 500 and "secret" not in said.text
    assert said.json()["request_id"] == said.headers["X-Request-ID"]
    assert "secret path" in caplog.text


def test_full_house_says_when_to_come_again(exported, monkeypatch):
    config = ServiceConfig(str(exported[1]), "torch", threads=1, places=1, predict=20)
    gate = threading.Event()
    with testclient.TestClient(service_app(config)) as client:
        model = client.app.state.service.watched.model
        usual = model.scores
        monkeypatch.setattr(model, "scores", lambda picture: gate.wait(10) and usual(picture))
        data = exported[2].read_bytes()

        def ask():
            return client.post("/predict", content=data, headers=PNG)

        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(ask) for _ in range(6)]
            while sum(each.done() for each in asked) < 4:
                time.sleep(0.01)
            assert client.get("/health").json()["inside"] == 2
            gate.set()
            said = [each.result() for each in asked]
    codes = sorted(each.status_code for each in said)
    assert codes == [200, 200, 429, 429, 429, 429]
    assert all(int(each.headers["Retry-After"]) >= 1 for each in said if each.status_code == 429)


def test_slow_answers_are_told(exported, monkeypatch):
    config = ServiceConfig(str(exported[1]), "torch", threads=1, predict=0.1)
    with testclient.TestClient(service_app(config)) as client:
        model, gate = client.app.state.service.watched.model, threading.Event()
        monkeypatch.setattr(model, "scores", lambda picture: gate.wait(60) and [0.5, 0.5])
        said = client.post("/predict", content=exported[2].read_bytes(), headers=PNG)
        assert said.status_code == 503 and said.headers["Retry-After"]
        # the work goes on, and its place is not given away before it has ended
        assert client.get("/health").json()["inside"] == 1
        gate.set()


def test_a_model_is_replaced_or_refused(client, exported):
    learn, file, photo = exported
    whole, data = file.read_bytes(), photo.read_bytes()

    def health_until(right):
        for _ in range(400):
            found = client.get("/health").json()
            if right(found):
                return found
            time.sleep(0.02)
        raise AssertionError(found)

    first = client.get("/health").json()["model"]
    try:
        file.write_bytes(whole[:-100])
        assert health_until(lambda found: found["refused"])["model"] == first
        assert client.post("/predict", content=data, headers=PNG).json()["label"] == "red"
        with torch.no_grad():
            learn.model[-1].bias += 5 * torch.tensor([1.0, -1.0])
        learn.export(file)
        assert health_until(lambda found: found["model"] != first)["refused"] is None
        assert client.post("/predict", content=data, headers=PNG).json()["label"] == "blue"
    finally:
        with torch.no_grad():
            learn.model[-1].bias -= 5 * torch.tensor([1.0, -1.0])
        file.write_bytes(whole)


def until(right, seconds=20):
    end = time.monotonic() + seconds
    while not right():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_watcher_outlives_whatever_goes_wrong(exported):
    "A new model that cannot be converted, say, must not end the looking for the next one."
    learn, file, photo = exported
    whole = file.read_bytes()
    config = ServiceConfig(
        str(file), "torch", watch=0.02, batch=4, deadline=0.001, receive=0.1, predict=0.2
    )
    usual = config.load
    with testclient.TestClient(service_app(config)) as client:
        watched = client.app.state.service.watched
        old = watched.model

        def broken(path):
            raise RuntimeError("no word for this in ONNX")

        watched.make = broken
        try:
            learn.export(file)
            until(lambda: "no word for this" in (client.get("/health").json()["refused"] or ""))
            assert watched.model is old
            watched.make = usual
            file.write_bytes(whole)
            until(lambda: watched.model is not old)
            said = client.post("/predict", content=photo.read_bytes(), headers=PNG)
            assert said.json()["label"] == "red" and not watched.refused
            until(lambda: not old.batcher.thread.is_alive())
            assert watched.model.batcher.thread.is_alive()
        finally:
            file.write_bytes(whole)


def test_bodies_on_their_way_are_bounded(exported):
    config = ServiceConfig(str(exported[1]), "torch", max_held=5_000)
    with testclient.TestClient(service_app(config)) as client:
        said = client.post("/predict", content=b"x" * 20_000, headers=PNG)
        assert said.status_code == 429 and said.headers["Retry-After"]
        assert client.app.state.service.intake.held == 0


def test_batches_give_the_same_answers(exported):
    config = ServiceConfig(str(exported[1]), "torch", batch=4, deadline=0.02)
    data = exported[2].read_bytes()
    with testclient.TestClient(service_app(config)) as client:
        model = client.app.state.service.watched.model
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda _: client.post("/predict", content=data), range(24)))
        assert {each.json()["label"] for each in said} == {"red"}
        assert max(model.batcher.sizes) > 1


def test_pages_ask_no_other_host(client):
    for page in ("/", "/docs"):
        text = client.get(page).text
        assert "http://" not in text and "https://" not in text
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert {"200", "413", "415", "422", "429", "503"} <= described["responses"].keys()


def test_a_batcher_waits_no_longer_than_its_deadline():
    with Batcher(lambda x: x + 1, size=100, deadline=0.05) as batcher:
        started = time.monotonic()
        assert batcher.submit(torch.zeros(1)).result(timeout=5).item() == 1
        assert 0.04 < time.monotonic() - started < 2
    with pytest.raises(ValueError, match="size=0"):
        Batcher(lambda x: x, size=0)


def test_a_room_forgets_nobody():
    async def leave_early():
        room, gate = WaitingRoom(1, 5, seconds=0.05), threading.Event()
        with pytest.raises(TimeoutError):
            await room.do(lambda: gate.wait(60))
        assert room.inside == 1
        gate.set()
        async with asyncio.timeout(60):
            while room.inside:
                await asyncio.sleep(0.01)
        room.close()

    asyncio.run(leave_early())


def test_what_cannot_be_served(tmp_path, exported):
    with pytest.raises(DataError):
        ServedModel(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="runtime='tpu'"):
        ServedModel(exported[1], "tpu")
    with pytest.raises(DataError, match="places=-1"):
        ServiceConfig("x", places=-1)


def test_a_watched_file_may_vanish(exported):
    watched = WatchedModel(exported[1], lambda file: json.dumps(str(file)))
    whole = exported[1].read_bytes()
    exported[1].unlink()
    try:
        assert not watched.look() and watched.model
    finally:
        exported[1].write_bytes(whole)
