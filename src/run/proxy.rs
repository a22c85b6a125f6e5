//! Which proxy stands between this program and the cluster. Pure, but for reading the environment in [`settle`].
//!
//! The kubeconfig's `proxy-url` is for its cluster, whatever else is said. `HTTPS_PROXY` is for every cluster but those that
//! `NO_PROXY` names, and never for this very machine: the client's own reading of `NO_PROXY` is about the proxy's name.

use std::net::IpAddr;

use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use url::Url;

/// Takes a proxy off that the environment names, but not for this cluster.
pub fn settle(config: &mut Config) {
    if is_direct(config, |name| std::env::var(name).ok()) {
        config.proxy_url = None;
    }
}

fn is_direct(config: &Config, env: impl Fn(&str) -> Option<String>) -> bool {
    let set = |names: [&str; 2]| names.into_iter().find_map(|name| env(name).filter(|value| !value.is_empty()));
    let Some(proxy) = config.proxy_url.as_ref().map(ToString::to_string) else { return true };
    let named = set(["HTTPS_PROXY", "https_proxy"]).and_then(|text| Url::parse(&text).ok());
    if named.is_none() || named != Url::parse(&proxy).ok() {
        return false;
    }
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let excepted = set(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    // Only whether the cluster is excepted is asked of it, so which proxy it is makes no difference.
    let matcher = Matcher::builder().all("http://proxy.invalid".to_owned()).no(excepted.clone()).build();
    is_here || excepted.trim() == "*" || matcher.intercept(&config.cluster_url).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "http://proxy.corp.example:3128";

    fn is_direct_with(cluster: &str, proxy: Option<&str>, env: &[(&str, &str)]) -> bool {
        let mut config = Config::new(cluster.parse().unwrap());
        config.proxy_url = proxy.map(|proxy| proxy.parse().unwrap());
        is_direct(&config, |name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environments_proxy_is_for_every_cluster_but_those_that_are_excepted_and_this_machine() {
        let env = [("HTTPS_PROXY", PROXY), ("NO_PROXY", "10.0.0.0/8, .inside.example,")];
        let direct = |cluster: &str| is_direct_with(cluster, Some(PROXY), &env);
        assert!(!direct("https://api.outside.example:6443"));
        for spared in [
            "https://10.1.2.3",
            "https://api.inside.example",
            "https://127.0.0.1:6443",
            "https://[::1]",
            "https://localhost",
        ] {
            assert!(direct(spared), "{spared}");
        }
        let all = [("https_proxy", PROXY), ("no_proxy", "*")];
        assert!(is_direct_with("https://api.outside.example", Some(PROXY), &all));
    }

    #[test]
    fn the_kubeconfigs_proxy_is_for_its_cluster_whatever_the_environment_says() {
        let env = [("HTTPS_PROXY", PROXY), ("NO_PROXY", "*")];
        assert!(!is_direct_with("https://127.0.0.1:6443", Some("socks5://127.0.0.1:1080"), &env));
        assert!(!is_direct_with("https://127.0.0.1:6443", Some("socks5://127.0.0.1:1080"), &[]));
        assert!(is_direct_with("https://api.outside.example", None, &env), "there is none");
    }
}
