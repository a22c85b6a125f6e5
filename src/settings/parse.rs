//! From text to values, one form each; what does not fit is told with the form that would.
//!
//! Knows names only as far as it repeats them in the complaint.

use std::{ffi::OsString, fmt::Display, net::IpAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{SettingsError, endpoint};

type Lookup<'a> = Box<dyn FnMut(&str) -> Option<OsString> + 'a>;

/// Flags over environment.
pub(super) struct Source<'a> {
    flag: Lookup<'a>,
    env: Lookup<'a>,
}

impl<'a> Source<'a> {
    pub(super) fn new(
        flag: impl FnMut(&str) -> Option<OsString> + 'a,
        env: impl FnMut(&str) -> Option<OsString> + 'a,
    ) -> Self {
        Self { flag: Box::new(flag), env: Box::new(env) }
    }

    /// Any text; without the blanks around it, and `None` when nothing is left.
    pub(super) fn text(&mut self, variable: &'static str) -> Result<Option<String>, SettingsError> {
        let Some(raw) = (self.flag)(variable).or_else(|| (self.env)(variable)) else {
            return Ok(None);
        };
        let text = raw.into_string().map_err(|raw| wrong(variable, raw.to_string_lossy(), "text in UTF-8"))?;
        let text = text.trim();
        if text.contains(char::is_control) {
            return Err(wrong(variable, text, "text without control characters"));
        }
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    fn parsed<T>(
        &mut self,
        variable: &'static str,
        accepted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(text) = self.text(variable)? else {
            return Ok(None);
        };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(wrong(variable, text, accepted)),
        }
    }

    pub(super) fn number<T>(
        &mut self,
        variable: &'static str,
        default: T,
        range: RangeInclusive<u32>,
    ) -> Result<T, SettingsError>
    where
        T: TryFrom<u32>,
    {
        let accepted = format!("a whole number from {} to {}", range.start(), range.end());
        let parse = |text: &str| {
            let number = u32::from_str(text).ok().filter(|number| range.contains(number))?;
            T::try_from(number).ok()
        };
        Ok(self.parsed(variable, &accepted, parse)?.unwrap_or(default))
    }

    /// Like [`number`](Self::number), with a bound that is better told in words.
    pub(super) fn number_in_words(
        &mut self,
        variable: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
        accepted: &str,
    ) -> Result<u64, SettingsError> {
        let parse = |text: &str| u64::from_str(text).ok().filter(|number| range.contains(number));
        Ok(self.parsed(variable, accepted, parse)?.unwrap_or(default))
    }

    pub(super) fn seconds(
        &mut self,
        variable: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, SettingsError> {
        let accepted = format!("whole seconds from {} to {}", range.start(), range.end());
        self.number_in_words(variable, default, range, &accepted).map(Duration::from_secs)
    }

    pub(super) fn rate(&mut self, variable: &'static str, default: f64) -> Result<f64, SettingsError> {
        let parse = |text: &str| f64::from_str(text).ok().filter(|rate| (0.001..=10_000.0).contains(rate));
        let accepted = "a number from 0.001 to 10000, for example 5 or 0.5";
        Ok(self.parsed(variable, accepted, parse)?.unwrap_or(default))
    }

    pub(super) fn duration(&mut self, variable: &'static str, default: Duration) -> Result<Duration, SettingsError> {
        Ok(self.parsed(variable, DURATION, duration)?.unwrap_or(default))
    }

    pub(super) fn boolean(&mut self, variable: &'static str, default: bool) -> Result<bool, SettingsError> {
        Ok(self.word(variable, &[("true", true), ("false", false)])?.unwrap_or(default))
    }

    pub(super) fn word<T: Copy>(
        &mut self,
        variable: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, SettingsError> {
        let list = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let accepted = match list.as_slice() {
            [only] => format!("{only}, or nothing"),
            several => several.join(" or "),
        };
        self.parsed(variable, &accepted, |text| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value))
    }

    pub(super) fn ip(&mut self, variable: &'static str) -> Result<Option<IpAddr>, SettingsError> {
        self.parsed(variable, "an IP address, or nothing for all", |text| text.parse().ok())
    }

    /// A name as Kubernetes takes it for most objects.
    pub(super) fn name(&mut self, variable: &'static str) -> Result<Option<String>, SettingsError> {
        let accepted = "a Kubernetes name: lower-case letters, digits, '-' and '.', at most 253";
        self.parsed(variable, accepted, |text| is_dns_subdomain(text).then(|| text.to_owned()))
    }

    /// Directives as `EnvFilter` takes them, but stricter: it takes a misspelt level for the name of a module, and then
    /// logs nothing.
    pub(super) fn log_level(&mut self, variable: &'static str) -> Result<Option<String>, SettingsError> {
        let accepted = "error, warn, info, debug, trace or off, or such directives as info,kube=debug";
        self.parsed(variable, accepted, |text| {
            let known = |part: &str| part.contains('=') || LevelFilter::from_str(part).is_ok();
            (text.split(',').map(str::trim).all(known) && EnvFilter::try_new(text).is_ok()).then(|| text.to_owned())
        })
    }

    pub(super) fn taint_keys(&mut self, variable: &'static str) -> Result<Option<Vec<String>>, SettingsError> {
        let accepted = "taint keys with commas between them, for example karpenter.sh/disrupted,example.com/leaving";
        self.parsed(variable, accepted, |text| {
            let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty());
            let keys = keys.map(|key| is_label_key(key).then(|| key.to_owned())).collect::<Option<Vec<_>>>()?;
            (!keys.is_empty()).then_some(keys)
        })
    }

    pub(super) fn label_selector(&mut self, variable: &'static str) -> Result<Option<String>, SettingsError> {
        let accepted = "a label selector, for example team=voice or tier in (a,b)";
        self.parsed(variable, accepted, |text| is_label_selector(text).then(|| text.to_owned()))
    }

    pub(super) fn endpoint(&mut self, variable: &'static str, insecure: bool) -> Result<Option<String>, SettingsError> {
        let Some(text) = self.text(variable)? else {
            return Ok(None);
        };
        match endpoint::check(&text, insecure) {
            Ok(()) => Ok(Some(text)),
            Err(accepted) => Err(wrong(variable, text, accepted)),
        }
    }
}

fn wrong(variable: &'static str, value: impl Display, accepted: impl Into<String>) -> SettingsError {
    SettingsError::Value { variable, value: value.to_string(), accepted: accepted.into() }
}

pub(super) const DURATION: &str =
    "a duration from 1ms to 24h with its unit (ms, s, m or h), for example 500ms, 30s or 2m";

/// `500ms`, `30s`, `2m`, `1h`: one whole number and its unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let total = number.parse::<u64>().ok()?.checked_mul(millis)?;
    (1..=86_400_000).contains(&total).then(|| Duration::from_millis(total))
}

fn is_dns_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The rule for keys of labels and taints: a name of up to 63, with a domain before it or not.
fn is_label_key(text: &str) -> bool {
    let (domain, name) = match text.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, text),
    };
    domain.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    let at_ends = |c: &u8| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.bytes().all(inner)
        && text.as_bytes().first().is_none_or(at_ends)
        && text.as_bytes().last().is_none_or(at_ends)
}

/// The grammar of kubectl's `-l`: `key`, `!key`, `key=value`, `key!=value`, `key in (a,b)`, `key notin (a,b)`.
fn is_label_selector(text: &str) -> bool {
    let mut depth = 0_i32;
    let requirements = text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    requirements.map(str::trim).all(is_requirement)
}

fn is_requirement(text: &str) -> bool {
    if let Some(key) = text.strip_prefix('!') {
        return is_label_key(key.trim());
    }
    for operator in ["!=", "==", "="] {
        if let Some((key, value)) = text.split_once(operator) {
            return is_label_key(key.trim()) && is_label_value(value.trim());
        }
    }
    for operator in [" in ", " notin "] {
        if let Some((key, set)) = text.split_once(operator) {
            let set = set.trim().strip_prefix('(').and_then(|set| set.strip_suffix(')'));
            return is_label_key(key.trim())
                && set.is_some_and(|set| set.split(',').map(str::trim).all(is_label_value));
        }
    }
    is_label_key(text)
}
