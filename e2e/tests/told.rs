//! What people see of a running operator: tables, descriptions and events, waits, logs, metrics.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod acts;
#[path = "told/golden.rs"]
mod golden;
#[path = "told/logs.rs"]
mod logs;
#[path = "told/metrics.rs"]
mod metrics;
#[path = "told/normal.rs"]
mod normal;
#[path = "told/unseen.rs"]
mod unseen;

use acts::Theatre;
use anyhow::Result;
use e2e::stage::Stage;
use tokio::sync::OnceCell;

static THEATRE: Theatre = Theatre::new();

/// The operator, telling what it tells at debug, too.
async fn installed(stage: &Stage) -> Result<()> {
    static ONCE: OnceCell<()> = OnceCell::const_new();
    ONCE.get_or_try_init(async || {
        stage.agent.extra_env("LOG_LEVEL", "debug");
        stage.install(&["clusterName=c1"]).await?;
        stage.until_led(None).await.map(drop)
    })
    .await
    .copied()
}

#[test]
fn what_kubectl_shows_is_what_the_golden_files_show() -> Result<()> {
    THEATRE.bare(async |stage| {
        installed(stage).await?;
        golden::play(stage).await
    })
}

#[test]
fn kubectl_waits_for_ready_also_of_an_object_that_nobody_has_seen_or_seen_as_it_is_now() -> Result<()> {
    THEATRE.bare(async |stage| {
        installed(stage).await?;
        unseen::play(stage).await
    })
}

#[test]
fn at_rest_nothing_is_logged_above_debug_and_a_move_is_logged_with_its_trace() -> Result<()> {
    THEATRE.bare(async |stage| {
        installed(stage).await?;
        logs::play(stage).await
    })
}

#[test]
fn metrics_are_those_of_the_catalogue_please_promtool_and_vanish_with_what_they_are_about() -> Result<()> {
    THEATRE.bare(async |stage| {
        installed(stage).await?;
        metrics::play(stage).await
    })
}
