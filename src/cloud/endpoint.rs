//! Which endpoint of a cloud may be spoken to. The same rule for every provider.

use std::net::IpAddr;

use url::{Host, Url};

/// Tokens travel in clear over plain http: only within the machine, or where somebody said that it is meant.
pub(in crate::cloud) fn safe_endpoint(endpoint: &str, allow_insecure: bool) -> Result<(), String> {
    let url = Url::parse(endpoint).map_err(|error| format!("the endpoint \"{endpoint}\" is not a URL: {error}"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => return Err(format!("the endpoint \"{endpoint}\" names no host")),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback || allow_insecure => Ok(()),
        "http" => Err(format!(
            "the endpoint \"{endpoint}\" is plain http outside loopback; use https or set ALLOW_INSECURE_ENDPOINT=true"
        )),
        scheme => Err(format!("the endpoint \"{endpoint}\" must be https, not {scheme}")),
    }
}

#[cfg(test)]
mod tests {
    use super::safe_endpoint;

    #[test]
    fn tokens_leave_the_machine_in_clear_only_when_somebody_said_so() {
        for safe in [
            "https://compute.googleapis.com",
            "https://10.0.0.8/",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:8080/prefix",
            "http://localhost:1",
        ] {
            assert_eq!(safe_endpoint(safe, false), Ok(()), "{safe}");
        }
        for unsafe_one in ["http://compute.internal", "http://10.0.0.8:80", "http://localhost.example.com"] {
            let refused = safe_endpoint(unsafe_one, false).unwrap_err();
            assert!(refused.contains("ALLOW_INSECURE_ENDPOINT"), "{refused}");
            assert_eq!(safe_endpoint(unsafe_one, true), Ok(()), "{unsafe_one}");
        }
    }

    #[test]
    fn an_endpoint_is_a_web_address() {
        for wrong in ["compute.googleapis.com", "", "ftp://127.0.0.1/", "https://"] {
            assert!(safe_endpoint(wrong, true).is_err(), "{wrong}");
        }
    }
}
