//! Every query of the dashboard, asked of a real Prometheus that scrapes a real operator: none is wrong, none is empty.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{fs, path::Path};

use acts::{Theatre, allocation, allocation_on, pool, reserve, surveys, until_moved};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Prometheus, Seen, wait_for},
    stage::{PATIENCE, Stage},
};
use serde_json::Value;

/// The allocation, its pool, an address that moves, and one that is not reserved anywhere.
const NAME: &str = "panels";
const MOVES: &str = "203.0.113.80";
const LACKS: &str = "203.0.113.81";

static THEATRE: Theatre = Theatre::new();

#[test]
fn every_query_of_the_dashboard_yields_something() -> Result<()> {
    THEATRE.bare(async |stage| {
        let prometheus = stage.prometheus().await?;
        stage.install(&["clusterName=stage"]).await?;
        stage.until_led(None).await?;
        begin(stage).await?;

        let dashboard = dashboard()?;
        let queries = queries(&dashboard);
        ensure!(queries.len() > 40, "the dashboard has {} queries", queries.len());
        let asked = async {
            for (title, expression) in &queries {
                yields(&prometheus, title, expression).await?;
            }
            for (name, expression) in marks(&dashboard) {
                yields(&prometheus, name, &expression).await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            asked = asked => asked?,
            moving = go_on(stage) => return moving,
        }
        let node = at_rest_again(stage).await?;
        let (_, table) = queries.iter().find(|(title, _)| *title == "IP to Node Mapping").context("no such table")?;
        has_rows(&prometheus, table, &[(MOVES, node.as_str()), (LACKS, "none")]).await?;
        for variable in list(&dashboard, "/templating/list") {
            if let Some((metric, label)) = values_of(variable) {
                // The values that a reader can choose among.
                yields(&prometheus, "a variable", &format!("count by ({label}) ({metric}{{{label}!=\"\"}})")).await?;
            }
        }
        Ok(())
    })
}

/// An address attaches, and another allocation lacks its own.
async fn begin(stage: &Stage) -> Result<()> {
    reserve(stage, &[MOVES])?;
    pool(stage, NAME, 3).await?;
    stage.cluster.apply(&allocation_on(NAME, "lacking", &[LACKS], "")).await?;
    stage.cluster.apply(&allocation(NAME, &[MOVES], "")).await?;
    stage.until_attached(NAME, MOVES).await.map(drop)
}

/// It moves again and again, until something fails: what is shown as a rate goes on while each query is asked.
async fn go_on(stage: &Stage) -> Result<()> {
    loop {
        let from = stage.until_attached(NAME, MOVES).await?;
        stage.cluster.kubectl(&["cordon", &from]).await?;
        until_moved(stage, NAME, MOVES, &from).await?;
        stage.cluster.kubectl(&["uncordon", &from]).await?;
    }
}

/// Its node, from which it does not move any more, wherever the last move was broken off.
async fn at_rest_again(stage: &Stage) -> Result<String> {
    for node in (0..3).map(|n| format!("{NAME}-{n}")) {
        stage.cluster.kubectl(&["uncordon", &node]).await?;
    }
    surveys(stage, 2).await?;
    stage.until_attached(NAME, MOVES).await
}

/// What was seen within the last minute counts as data; a number need not be there at the first scrape.
async fn yields(prometheus: &Prometheus, title: &str, expression: &str) -> Result<()> {
    wait_for(&format!("{title} shows something: {expression}"), PATIENCE, || async {
        let series = prometheus.query(expression).await?;
        let number = |one: &Value| one.pointer("/value/1").and_then(Value::as_str).is_some_and(|text| text != "NaN");
        Ok(Seen::when(series.iter().any(number), format!("{series:?}")))
    })
    .await
}

/// The table of addresses: one row for each, with the node where it is, and none of those where it was.
async fn has_rows(prometheus: &Prometheus, expression: &str, wanted: &[(&str, &str)]) -> Result<()> {
    wait_for("each address has its row", PATIENCE, || async {
        let series = prometheus.query(expression).await?;
        let label = |one: &Value, name: &str| one["metric"][name].as_str().unwrap_or_default().to_owned();
        let mut rows: Vec<(String, String)> = series.iter().map(|one| (label(one, "ip"), label(one, "node"))).collect();
        rows.sort();
        let same = rows.iter().map(|(ip, node)| (&**ip, &**node)).eq(wanted.iter().copied());
        Ok(Seen::when(same, rows))
    })
    .await
}

fn dashboard() -> Result<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/ip-address-controller.json");
    Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Name and expression of each annotation. It marks changes, of which there need be none: what they are told from is asked.
fn marks(dashboard: &Value) -> Vec<(&str, String)> {
    let marks = list(dashboard, "/annotations/list").iter();
    let told = |mark: &Value| Some(chosen(mark["expr"].as_str()?.trim_end_matches(" > 0")));
    marks.filter_map(|mark| Some((mark["name"].as_str()?, told(mark)?))).collect()
}

/// Title and expression, as Grafana would ask when everything is chosen.
fn queries(dashboard: &Value) -> Vec<(&str, String)> {
    let panels = list(dashboard, "/panels").iter().filter(|panel| panel["type"] != "row");
    panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap_or_default();
            let expressions = list(panel, "/targets").iter().filter_map(|target| target["expr"].as_str());
            expressions.map(move |expression| (title, chosen(expression)))
        })
        .collect()
}

fn chosen(expression: &str) -> String {
    expression
        .replace("$cluster", ".*")
        .replace("$namespace", ".+")
        .replace("$job", ".+")
        .replace("$crd_name", ".+")
        .replace("$__rate_interval", "1m")
}

/// Of `label_values(METRIC, LABEL)`.
fn values_of(variable: &Value) -> Option<(&str, &str)> {
    variable["query"].as_str()?.strip_prefix("label_values(")?.strip_suffix(')')?.split_once(", ")
}

#[test]
fn a_query_that_asks_for_what_is_not_there_fails_this_test() -> Result<()> {
    THEATRE.bare(async |stage| {
        let prometheus = stage.prometheus().await?;
        ensure!(prometheus.query("netipallocation_no_such_metric").await?.is_empty(), "it yields something");
        let error = prometheus.query("sum(").await.err().context("nonsense is answered")?;
        ensure!(error.to_string().contains("parse error"), "{error}");
        Ok(())
    })
}
