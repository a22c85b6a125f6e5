//! Which cloud endpoints may be used: tokens are sent there, so plain http stays on this machine.
//!
//! Knows no cloud.

use std::net::IpAddr;

/// `Ok` for an `https` URL, and for an `http` URL on loopback or where `insecure` is allowed.
///
/// # Errors
/// The form that would be accepted.
pub(super) fn check(url: &str, insecure: bool) -> Result<(), &'static str> {
    const FORM: &str = "a URL such as https://compute.example.com, without user, query or fragment";
    const PLAIN: &str = "https:// (plain http outside loopback needs ALLOW_INSECURE_ENDPOINT=true)";
    let (plain, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err(FORM),
    };
    if rest.contains(['?', '#', '@', '\\']) || rest.contains(char::is_whitespace) {
        return Err(FORM);
    }
    let host = host(rest.split('/').next().unwrap_or_default()).ok_or(FORM)?;
    if plain && !insecure && !is_loopback(host) {
        return Err(PLAIN);
    }
    Ok(())
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            let port = match after {
                "" => None,
                port => Some(port.strip_prefix(':')?),
            };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    (!host.is_empty() && port_fits).then_some(host)
}

/// `localhost` by its name alone: what another name resolves to is the resolver's word.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
