//! The same words for what differs from run to run: ages, times, ids, and the width of columns.

use jiff::Timestamp;

/// Every line with what differs masked. Columns are two blanks apart; a line's indentation stays.
pub fn normal(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", normal_line(line))).collect()
}

fn normal_line(line: &str) -> String {
    let inner = line.trim_start();
    let mut masked = line[..line.len() - inner.len()].to_owned();
    let mut blanks = 0;
    for word in inner.split(' ') {
        if word.is_empty() {
            blanks += 1;
            continue;
        }
        if !masked.trim_start().is_empty() {
            masked.push_str(if blanks > 0 { "  " } else { " " });
        }
        masked.push_str(&mask(word));
        blanks = 0;
    }
    counted(masked.trim_end())
}

/// Numbers that only their key tells.
fn counted(line: &str) -> String {
    for key in ["Resource Version:", "Gap Seconds:"] {
        if let Some((before, _)) = line.split_once(key) {
            return format!("{before}{key}  NUMBER");
        }
    }
    // `5s (x2 over 9s)`: how often an event was repeated.
    match line.split_once(" (x") {
        Some((before, rest)) if rest.contains(" over AGE)") => {
            format!("{before}{}", rest.split_once(')').map_or("", |(_, rest)| rest))
        }
        _ => line.to_owned(),
    }
}

fn mask(word: &str) -> String {
    let body = word.trim_start_matches(['(', '"']);
    let start = &word[..word.len() - body.len()];
    let body = body.trim_end_matches([')', '"', ',', ';', '.', ':']);
    let end = &word[start.len() + body.len()..];
    format!("{start}{}{end}", of(body))
}

fn of(word: &str) -> String {
    let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(id) = word.strip_prefix("trace=").filter(|id| hex(id, 32)) {
        return format!("trace={}", of(id));
    }
    if let Some((place, id)) = word.split_once('#')
        && id.bytes().all(|byte| byte.is_ascii_digit())
    {
        return format!("{place}#ID");
    }
    match word {
        _ if word.len() >= 20 && word.parse::<Timestamp>().is_ok() => "TIME".to_owned(),
        _ if hex(word, 32) => "TRACE".to_owned(),
        _ if word.len() == 55 && word.starts_with("00-") => "TRACEPARENT".to_owned(),
        _ if word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12]) => "UID".to_owned(),
        _ if is_age(word) => "AGE".to_owned(),
        _ if word.starts_with("ip-address-controller-") => "POD".to_owned(),
        _ => word.to_owned(),
    }
}

/// `12s`, `3m4s`, `41d`.
fn is_age(word: &str) -> bool {
    let mut units = word.split_inclusive(['s', 'm', 'h', 'd']);
    !word.is_empty()
        && units.all(|part| {
            part.strip_suffix(['s', 'm', 'h', 'd'])
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
}

#[test]
fn what_differs_is_masked_and_nothing_else() {
    let told = normal(
        "NAME   AGE\nsip    3m4s\n  Last Transition Time:  2026-11-28T03:12:07Z\n  Resource Version:      4711\n\
         since 2026-11-28T03:12:07Z, then (41d) trace=0123456789abcdef0123456789abcdef\n\
         gce://p/z/a#17   7s (x2 over 12s)   203.0.113.7 is off node sip-a; 2 nodes: 1 cordoned, no-eligible-node\n",
    );
    assert_eq!(
        told,
        "NAME  AGE\nsip  AGE\n  Last Transition Time:  TIME\n  Resource Version:  NUMBER\n\
         since TIME, then (AGE) trace=TRACE\n\
         gce://p/z/a#ID  AGE  203.0.113.7 is off node sip-a; 2 nodes: 1 cordoned, no-eligible-node\n"
    );
}
