"""Fetching from FPbase: a local server answers in FPbase's form, and what it cannot answer is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.errors import SimexmError, SpecError
from simexm.spectra import fpbase
from simexm.spectra.dyes import from_csv
from tests.build import layer, spec
from tests.markdown import block, type_here

PROTEIN = {
    "name": "mTest2",
    "defaultState": {"id": "7"},
    "states": [
        {"id": "6", "name": "off", "extCoeff": 100, "qy": 0.01, "lifetime": None, "spectra": []},
        {
            "id": "7", "name": "default", "extCoeff": 56000, "qy": 0.6, "lifetime": 2.6,
            "spectra": [
                {"subtype": "EX", "data": [[440, 0.1], [488, 1], [500, 0.4]]},
                {"subtype": "EM", "data": [[500, 0.6], [490, -0.001], [507, 1], [560, 0.2]]},
                {"subtype": "A_2P", "data": [[920, 1]]},
            ],
        },
    ],
}  # fmt: skip
DYE = {
    "name": "Test Fluor 568", "extCoeff": 91300, "qy": 0.69,
    "spectra": [
        {"subtype": "AB", "data": [[540, 0.4], [578, 1], [600, 0.1]]},
        {"subtype": "EX", "data": [[540, 0.9], [578, 1]]},
        {"subtype": "EM", "data": [[580, 0.1], [603, 1], [650, 0.3]]},
    ],
}  # fmt: skip
DARK = {"name": "Dark", "extCoeff": None, "qy": None, "spectra": [{"subtype": "EX", "data": [[400, 1], [410, 0.5]]}]}
NAMES = {
    "dyes": [
        {"id": 3, "name": "Test Fluor 568", "slug": "test-fluor-568"},
        {"id": 4, "name": "Dark", "slug": "dark"},
        {"id": 3, "name": "Alexa Fluor 568", "slug": "alexa-fluor-568"},
    ],
    "proteins": [
        {"id": "R9NL8", "name": "mTest2", "slug": "mtest2"},
        {"id": "R9NL8", "name": "EGFP", "slug": "egfp"},
    ],
}
"""All with invented figures."""


class Server:
    """FPbase's GraphQL endpoint, as far as it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.reply: bytes | None = None
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                content = outer.reply if outer.reply is not None else json.dumps(outer.answer()).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/graphql/"

    def answer(self) -> dict[str, Any]:
        """What the last question asks for; ids have the types of FPbase's schema."""
        query, given = self.asked[-1]["query"], self.asked[-1]["variables"]
        if "proteins" in query:
            return {"data": NAMES}
        if "protein(" in query:
            return {"data": {"protein": PROTEIN if given == {"id": "R9NL8"} else None}}
        assert "$id: Int!" in query
        return {"data": {"dye": {3: DYE, 4: DARK}[given["id"]]}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A running server, asked instead of FPbase, and an empty working directory."""
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(fpbase, "URL", server.url)
    monkeypatch.chdir(tmp_path)
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["mTest2", "mtest 2", "M-TEST2"])
def test_a_protein_is_its_default_state(name: str, server: Server) -> None:
    found = fpbase.fetch(name)
    assert found.figures == {"extinction_per_M_per_cm": 56000, "quantum_yield": 0.6, "lifetime_ns": 2.6}
    assert (found.name, found.page, found.missing) == ("mTest2", "https://www.fpbase.org/protein/mtest2/", [])
    found.write(Path("a.csv"))
    dye = from_csv("a.csv", "mTest2")
    assert list(dye.excitation) == [(440, 0.1), (488, 1), (500, 0.4)]
    assert list(dye.emission) == [(490, 0), (500, 0.6), (507, 1), (560, 0.2)]  # in order, without noise below 0
    assert dye.extinction_per_M_per_cm == 56000
    assert "FPbase, mTest2 (https://www.fpbase.org/protein/mtest2/), fetched on 20" in dye.source
    assert len(server.asked) == 2


def test_a_dye_lacks_a_lifetime_and_the_spec_adds_it(server: Server) -> None:
    result = CliRunner().invoke(app, ["fluorophores", "--fetch", "test fluor 568", "--fetch", "mTest2"])
    assert result.exit_code == 0, result.output
    assert "FPbase has no lifetime_ns: add each beside `csv:`" in result.stdout
    assert '"mTest2": {csv: mTest2.csv}' in result.stdout
    dyes = yaml.safe_load(result.stdout)["dyes"]
    assert dyes == {"Test Fluor 568": {"csv": "Test_Fluor_568.csv"}, "mTest2": {"csv": "mTest2.csv"}}
    with pytest.raises(SpecError, match="lacks lifetime_ns of the dye 'Test Fluor 568'"):
        from_csv("Test_Fluor_568.csv", "Test Fluor 568")
    dyes["Test Fluor 568"]["lifetime_ns"] = 3.6
    simulation = Simulation.from_mapping(spec(layer(dye="mTest2"), dyes=dyes))
    assert simulation.fluorophores()["mTest2"].lifetime_ns == 2.6
    absorption = from_csv("Test_Fluor_568.csv", "x", lifetime_ns=3.6).excitation
    assert list(absorption) == [(540, 0.4), (578, 1), (600, 0.1)]  # not the excitation spectrum
    again = CliRunner().invoke(app, ["fluorophores", "--fetch", "mTest2"])
    assert again.exit_code == 2
    assert "mTest2.csv exists" in again.stderr
    assert CliRunner().invoke(app, ["fluorophores", "--fetch", "mTest2", "--overwrite"]).exit_code == 0


def test_names_that_fpbase_does_not_know_get_near_ones(server: Server) -> None:
    with pytest.raises(SpecError, match=r"knows no dye or protein 'mTets2'.*did you mean mTest2"):
        fpbase.fetch("mTets2")
    with pytest.raises(SpecError, match=r"'quite other'.*look it up at https://www\.fpbase\.org"):
        fpbase.fetch("quite other")
    with pytest.raises(SpecError, match="no emission spectrum of Dark"):
        fpbase.fetch("dark")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"<html>hold on</html>", "is no JSON"),
        (b'{"errors": [{"message": "no"}], "data": null}', "did not answer the question"),
        (b'{"data": {"dyes": [], "proteins": [{"id": 1}]}}', "not of the known form.*name: Field required"),
        (b'{"data": {"dyes": 3}}', "not of the known form"),
    ],
)
def test_an_answer_of_another_form_is_told(reply: bytes, message: str, server: Server) -> None:
    server.reply = reply
    with pytest.raises(SimexmError, match=f"{message}.*export the spectrum as CSV"):
        fpbase.fetch("mTest2")


def test_refusal_and_silence_are_told(server: Server) -> None:
    server.status = 403
    with pytest.raises(SimexmError, match=r"refused the request \(403\)"):
        fpbase.fetch("mTest2")
    server.http.server_close()
    result = CliRunner().invoke(app, ["fluorophores", "--fetch", "mTest2"])
    assert result.exit_code == 1
    assert "FPbase cannot be reached" in result.stderr
    assert "where there is a network" in result.stderr
    assert list(Path().iterdir()) == []


def test_negative_values_beyond_noise_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DYE["spectra"][2], "data", [[580, -0.1], [603, 1]])  # type: ignore[index]
    with pytest.raises(SpecError, match="Test Fluor 568 has negative values"):
        fpbase.fetch("Test Fluor 568")


def test_a_strange_name_becomes_a_plain_file(tmp_path: Path) -> None:
    found = fpbase.Fetched(
        "../a\nb/é 5", "x", {"lifetime_ns": None}, {"excitation": ((400, 1),), "emission": ((500, 1),)}
    )
    assert found.file_name == "a_b_é_5.csv"


def test_the_command_of_the_page_writes_the_files_that_it_names(server: Server, tmp_path: Path) -> None:
    told = type_here(block("docs/spectra.md", "--fetch").text, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"EGFP.csv", "Alexa_Fluor_568.csv"}
    assert '"EGFP": {csv: EGFP.csv}' in told


def test_fetching_is_typed_alone(server: Server) -> None:
    result = CliRunner().invoke(app, ["fluorophores", "ATTO488", "--fetch", "mTest2"])
    assert result.exit_code == 2
    assert "type it alone" in result.stderr
    assert server.asked == []
