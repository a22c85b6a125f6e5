//! What went over the wire for one request, told by who sees it: the hook that each provider's client offers.
//!
//! The hooks run within the future of the request, so what they say finds its way without being handed on through an SDK.
//! What no hook has said stays unknown, and is left off.

use std::{
    future::Future,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::Span;

/// The HTTP exchange behind a request; of several attempts, the last one.
#[derive(Debug, Default)]
pub(in crate::cloud) struct Exchange {
    pub method: Option<String>,
    pub server: Option<String>,
    pub status: Option<u16>,
    /// The attribute of the cloud's own id of it, and that id.
    pub id: Option<(&'static str, String)>,
    /// How often it has left.
    pub sent: u32,
}

type Shared = Arc<Mutex<Exchange>>;

tokio::task_local! {
    static EXCHANGE: Shared;
}

/// For a hook: a request leaves.
pub(in crate::cloud) fn sent(method: &str, server: Option<&str>) {
    said(|exchange| {
        *exchange = Exchange {
            method: Some(method.to_owned()),
            server: server.map(str::to_owned),
            sent: exchange.sent.saturating_add(1),
            ..Exchange::default()
        };
    });
}

/// For a hook: an answer has come. `id`: the cloud's own id of the exchange, after the attribute that it is told as.
pub(in crate::cloud) fn answered(status: u16, id: Option<(&'static str, &str)>) {
    said(|exchange| {
        exchange.status = Some(status);
        exchange.id = id.map(|(key, id)| (key, id.to_owned()));
    });
}

/// Nobody listens where a request is sent for its own sake: a token.
fn said(with: impl FnOnce(&mut Exchange)) {
    let _ = EXCHANGE.try_with(|exchange| with(&mut exchange.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// Does the work and hears what is said of its exchange.
pub(super) async fn heard<T>(work: impl Future<Output = T>) -> (T, Exchange) {
    let exchange = Shared::default();
    let result = EXCHANGE.scope(exchange.clone(), work).await;
    (result, take(&exchange))
}

/// Does the work and tells the span what is said of its exchange, also when it is given up.
pub(super) async fn told_by<T>(span: &Span, work: impl Future<Output = T>) -> T {
    let exchange = Shared::default();
    let _told = Telling { span, exchange: exchange.clone() };
    EXCHANGE.scope(exchange, work).await
}

fn take(exchange: &Shared) -> Exchange {
    mem::take(&mut exchange.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Tells at its end.
struct Telling<'a> {
    span: &'a Span,
    exchange: Shared,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let Exchange { method, server, status, id, sent } = take(&self.exchange);
        let span = self.span;
        if let Some(method) = method {
            span.record("http.request.method", method);
        }
        if let Some(server) = server {
            span.record("server.address", server);
        }
        if let Some(status) = status {
            span.record("http.response.status_code", i64::from(status));
        }
        if let Some((key, id)) = id {
            span.record(key, id);
        }
        // By the conventions it is there only where something was sent again.
        if sent > 1 {
            span.record("http.request.resend_count", i64::from(sent.saturating_sub(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn of_several_attempts_the_last_one_counts_and_how_often_it_was_sent() {
        let work = async {
            sent("GET", Some("a.example.com"));
            answered(503, Some(("aws.request_id", "first")));
            sent("GET", None);
        };
        let ((), exchange) = heard(work).now_or_never().unwrap();
        assert_eq!((exchange.sent, exchange.method.as_deref()), (2, Some("GET")));
        assert_eq!((exchange.status, exchange.server, exchange.id), (None, None, None), "not answered yet");
    }

    #[test]
    fn what_is_sent_for_nobody_is_heard_by_nobody() {
        sent("POST", None);
        let ((), exchange) = heard(async {}).now_or_never().unwrap();
        assert_eq!((exchange.sent, exchange.method), (0, None));
    }
}
