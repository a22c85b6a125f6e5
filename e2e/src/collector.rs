//! A collector of traces in this process: OTLP over HTTP and gRPC on one port, and what came is kept.
//!
//! Not more than the two protocols ask of a receiver, so that a test can look at what is really on the wire.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    trace::v1::span::{self, SpanKind},
};
use prost::Message as _;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// Where gRPC calls for traces go.
const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Where HTTP posts of traces go.
const HTTP: &str = "/v1/traces";

/// One span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    /// In hex; a parent that is empty is none.
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// Traces of the spans that it links to.
    pub links: Vec<String>,
    pub attributes: BTreeMap<String, String>,
    /// Of who sent it.
    pub resource: BTreeMap<String, String>,
    pub failed: bool,
    /// Of kind client: something was asked of somebody else.
    pub client: bool,
    pub events: Vec<Event>,
    /// Nanoseconds.
    pub began: u64,
    pub ended: u64,
}

/// An event of a span.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub attributes: BTreeMap<String, String>,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Post {
    pub path: String,
    pub headers: HeaderMap,
}

#[derive(Debug, Default)]
struct Heard {
    spans: Vec<Span>,
    posts: Vec<Post>,
}

/// See the module. It ends with the runtime that it was started on.
#[derive(Clone, Debug)]
pub struct Collector {
    scheme: &'static str,
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

impl Collector {
    /// Listens on loopback.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn start() -> io::Result<Self> {
        Self::listen(None).await
    }

    /// The same over TLS alone.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn start_tls(mut tls: ServerConfig) -> io::Result<Self> {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::listen(Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let collector = Self { scheme, address: listener.local_addr()?, heard: Arc::default() };
        let heard = collector.heard.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (heard, tls) = (heard.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, heard).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, heard).await;
                            }
                        }
                    }
                });
            }
        });
        Ok(collector)
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`, with either protocol.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Every span that has come.
    pub fn spans(&self) -> Vec<Span> {
        self.heard().spans.clone()
    }

    /// Every request that has come.
    pub fn posts(&self) -> Vec<Post> {
        self.heard().posts.clone()
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, heard: Arc<Mutex<Heard>>) {
    let service = service_fn(move |request| answer(request, heard.clone()));
    // A sender that hangs up is no fault.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, heard: Arc<Mutex<Heard>>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path().to_owned();
    let grpc = path == GRPC;
    let batch = match path.as_str() {
        GRPC => unframed(&body).and_then(|message| ExportTraceServiceRequest::decode(&*message).ok()),
        HTTP => plain(&head.headers, &body).and_then(|message| ExportTraceServiceRequest::decode(&*message).ok()),
        _ => None,
    };
    let understood = batch.is_some();
    {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.posts.push(Post { path, headers: head.headers });
        heard.spans.extend(batch.map(spans).unwrap_or_default());
    }
    let mut response = Response::new(said(understood, grpc));
    let kind = if grpc { "application/grpc" } else { "application/x-protobuf" };
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    if !understood && !grpc {
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

/// The empty message that means yes; over gRPC with its frame before and its status behind.
fn said(understood: bool, grpc: bool) -> Body {
    let message = ExportTraceServiceResponse::default().encode_to_vec();
    if !grpc {
        return StreamBody::new(stream::iter([Ok(Frame::data(Bytes::from(message)))])).boxed();
    }
    let status = if understood { "0" } else { "3" };
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
    let frames = [Frame::data(Bytes::from(vec![0; 5])), Frame::trailers(trailers)];
    StreamBody::new(stream::iter(frames.map(Ok))).boxed()
}

/// The one message of a gRPC body: a byte that says whether it is compressed, its length, itself.
fn unframed(body: &[u8]) -> Option<Vec<u8>> {
    let (compressed, rest) = body.split_first()?;
    let message = rest.get(4..)?;
    if *compressed == 1 { unzipped(message) } else { Some(message.to_vec()) }
}

fn plain(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let zipped = headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    if zipped { unzipped(body) } else { Some(body.to_vec()) }
}

fn unzipped(body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(body).read_to_end(&mut plain).ok()?;
    Some(plain)
}

fn spans(batch: ExportTraceServiceRequest) -> Vec<Span> {
    let mut all = Vec::new();
    for group in batch.resource_spans {
        let resource = words(group.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
                attributes: words(span.attributes),
                resource: resource.clone(),
                failed: span.status.is_some_and(|status| status.code == 2),
                client: span.kind == SpanKind::Client as i32,
                events: span.events.into_iter().map(event).collect(),
                began: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
            });
        }
    }
    all
}

fn event(event: span::Event) -> Event {
    Event { name: event.name, attributes: words(event.attributes) }
}

fn words(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let word = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.into_iter();
    pairs.map(|pair| (pair.key, word(pair.value.and_then(|value| value.value)))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
