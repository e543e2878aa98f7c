"""`flexway programmes`: the shipped index, comparison, and files of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config.programme_files import load_programmes, shipped_programmes
from gateway.cli.programmes import programmes
from marketplace_core.errors import ConfigError

ASKED_FOR = {
    "neso_dfs", "ukpn_flexibility", "enwl_flexibility", "nged_flexibility", "ssen_transition",
    "gb_capacity_market", "coned_csrp", "coned_dlrp", "rge_csrp", "nyiso_edrp",
    "connectedsolutions_ma_national_grid", "connectedsolutions_ct_eversource",
    "connectedsolutions_nh_eversource", "energy_storage_solutions_ct", "pge_elrp",
    "pge_power_saver_rewards", "dsgs_ca_storage_vpp", "sce_cbp", "gmp_byod_vt",
    "wattsmart_battery_ut", "heco_byod_hi", "aps_cool_rewards_az", "aps_byod_az", "ercot_ers_10",
}  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(programmes, list(arguments))


def test_the_index_holds_every_programme_that_was_asked_for_with_its_source() -> None:
    found = {each.id: each for each in shipped_programmes()}
    assert found.keys() >= ASKED_FOR
    for each in found.values():
        assert all(source.work and source.as_of for source in each.sources)


def test_list_narrows_by_country_word_and_technology() -> None:
    answer = run(
        "list", "--country", "US", "--text", "vermont", "--technology", "battery", "--json"
    )
    assert [each["id"] for each in json.loads(answer.output)] == ["gmp_byod_vt"]


def test_show_gives_facts_and_sources_and_an_unknown_one_names_the_list() -> None:
    answer = run("show", "pge_elrp")
    assert answer.exit_code == 0
    assert "PG&E ELRP" in answer.output
    assert "never an offer" in answer.output
    unknown = run("show", "nobody")
    assert unknown.exit_code == 1
    assert "flexway programmes list" in str(unknown.exception)


def test_compare_says_what_a_figure_stands_on() -> None:
    answer = run("compare", "--kw", "100", "--country", "US", "--technology", "battery",
                 "--event-hours", "30", "--json")  # fmt: skip
    found = {each["programme_id"]: each for each in json.loads(answer.output)}
    elrp = found["pge_elrp"]
    assert elrp["per_kw_year"] == "54.00"  # 2 USD x 30 h x 90 %
    assert elrp["assumed"] == [
        "90% of the power is delivered", "events for 30 h a year, as assumed",
    ]  # fmt: skip
    assert found["aps_cool_rewards_az"]["misfits"] == ["it takes thermostat only"]
    assert found["neso_dfs"]["misfits"]


def test_a_wrong_file_is_told_with_line_key_and_remedy_and_the_rest_is_good(tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[3] / "config/programmes/gb.yaml").read_text()
    wrong = shipped.replace("minimum_kw: 1000\n", "minimum: 1000\n", 1).replace(
        "country: GB\n  region: Oxfordshire", "country: England\n  region: Oxfordshire"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(wrong)
    line = wrong.splitlines().index("  minimum: 1000") + 1
    country = wrong.splitlines().index("  country: England") + 1
    answer = run("check", str(path))
    assert answer.exit_code == 1
    assert f"{path}:{line}: 0.minimum: unknown key; did you mean 'minimum_kw'?" in answer.output
    assert f"{path}:{country}: 4.country: " in answer.output
    assert "4 good, 2 wrong" in answer.output
    assert run("check", "config/programmes/us.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"), ("a: 1", "a list of programmes is expected"),
        ("- id: x\n  name: [1]", "Expected"), ("- 5", "Expected `object`"),
    ],
)  # fmt: skip
def test_what_is_no_index_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_programmes([path])


def test_an_id_that_stands_twice_is_refused() -> None:
    path = Path("config/programmes/gb.yaml")
    with pytest.raises(ConfigError, match="stands twice"):
        load_programmes([path, path])
