//! The client of the API server, for the operator and for the plugin.

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{Client, Config, client::ConfigExt};
use tower::{BoxError, ServiceBuilder};

use super::proxy;

/// One that retries nothing by itself, which would hide trouble. With the proxy that is meant for it.
///
/// # Errors
/// A configuration that cannot be used: certificates, credentials, a proxy.
pub fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    proxy::settle(&mut config);
    match config.proxy_url {
        Some(_) => Client::try_from(config),
        None => direct(&config),
    }
}

/// The layers that kube puts together for it, but over connections without Nagle's algorithm, which kube's have on
/// (kube-rs/kube#2056): the first request on each of them would wait for the acknowledgement of the handshake before it,
/// which Linux delays by 40 ms. And without kube's log lines of each request: whoever asks tells what became of it.
fn direct(config: &Config) -> Result<Client, kube::Error> {
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp())?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// After so long without a word from the API server it is asked whether it is there,
const SILENCE: Duration = Duration::from_secs(15);
/// and after so long without an answer to that, or to what was sent, the connection has failed. Without these the kernel would go on
/// for a quarter of an hour, and a watch show nothing meanwhile.
const UNANSWERED: Duration = Duration::from_secs(30);

fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    // What is inside of https is none of its business.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(SILENCE));
    connector.set_keepalive_interval(Some(SILENCE));
    connector.set_tcp_user_timeout(Some(UNANSWERED));
    connector
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn what_is_small_is_sent_at_once() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://{}", server.local_addr().unwrap()).parse().unwrap();
        let stream = tcp().oneshot(uri).await.unwrap();
        assert!(stream.inner().nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_request_has_the_servers_path_the_credentials_and_the_headers_of_the_configuration() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(format!("http://{}/under/", server.local_addr().unwrap()).parse().unwrap());
        config.auth_info.token = Some("t0ken".to_owned().into());
        config.auth_info.impersonate = Some("jane".to_owned());
        config.headers.push((HeaderName::from_static("x-more"), HeaderValue::from_static("said")));
        let client = client(config).unwrap();
        let answered = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            String::from_utf8_lossy(&asked[..length]).to_ascii_lowercase()
        };
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        let (told, asked) = tokio::join!(client.request_text(request), answered);
        assert_eq!(told.unwrap(), "ok");
        for line in ["get /under/readyz ", "authorization: bearer t0ken", "impersonate-user: jane", "x-more: said"] {
            assert!(asked.contains(line), "{line}: {asked}");
        }
    }
}
