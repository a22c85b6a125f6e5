//! Every query of the dashboard, asked of a real Prometheus that scrapes a real operator: none is wrong, none is empty.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{fs, path::Path};

use acts::{Theatre, allocation, pool, reserve, until_moved};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Prometheus, Seen, wait_for},
    stage::{PATIENCE, Stage},
};
use serde_json::Value;

static THEATRE: Theatre = Theatre::new();

#[test]
fn every_query_of_the_dashboard_yields_something() -> Result<()> {
    THEATRE.bare(async |stage| {
        let prometheus = stage.prometheus().await?;
        stage.install(&["clusterName=stage"]).await?;
        stage.until_led(None).await?;
        a_life(stage).await?;

        let dashboard = dashboard()?;
        let queries = queries(&dashboard);
        ensure!(queries.len() > 40, "the dashboard has {} queries", queries.len());
        for (title, expression) in queries {
            yields(&prometheus, title, &expression).await?;
        }
        for variable in list(&dashboard, "/templating/list") {
            if let Some((metric, label)) = values_of(variable) {
                // The values that a reader can choose among.
                yields(&prometheus, "a variable", &format!("count by ({label}) ({metric}{{{label}!=\"\"}})")).await?;
            }
        }
        Ok(())
    })
}

/// An address attaches, moves, and another allocation is in trouble.
async fn a_life(stage: &Stage) -> Result<()> {
    let (name, ip) = ("panels", "203.0.113.80");
    reserve(stage, &[ip])?;
    pool(stage, name, 3).await?;
    stage.cluster.apply(&allocation(name, &[ip], "")).await?;
    let from = stage.until_attached(name, ip).await?;
    stage.cluster.kubectl(&["cordon", &from]).await?;
    until_moved(stage, name, ip, &from).await?;
    Ok(())
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

fn dashboard() -> Result<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/ip-address-controller.json");
    Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Title and expression, as Grafana would ask when everything is chosen. Annotations mark changes: nothing is well there.
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
