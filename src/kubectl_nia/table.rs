//! Text for people: columns, ages, times and colours. Pure.

use jiff::Timestamp;

pub use crate::allocation::decide::story::clock;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

/// What a colour is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Moving,
    Bad,
}

impl Paint {
    /// The text in the colour of its tone.
    pub fn on(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Moving => "33",
            Tone::Bad => "31",
            Tone::Plain => return text.to_owned(),
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The tone of a state of an address, a newer version's included.
pub fn tone(state: &str) -> Tone {
    match state {
        "Attached" => Tone::Good,
        "Attaching" | "Draining" | "Detached" => Tone::Moving,
        "Unassigned" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
}

impl Cell {
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    /// What is not there is a dash, as kubectl has `<none>`.
    pub fn of(text: Option<&str>) -> Self {
        Self::plain(text.filter(|text| !text.is_empty()).unwrap_or("-"))
    }
}

/// Lines with columns that stand under each other; nothing after the last cell of a line. `widths` are kept from table to
/// table, so that what is printed later stands under what was printed first.
pub fn lines(rows: &[Vec<Cell>], widths: &mut Vec<usize>, paint: Paint) -> Vec<String> {
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = cell.text.chars().count();
            match widths.get_mut(column) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let line = |row: &Vec<Cell>| {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            text.push_str(&paint.on(cell.tone, &cell.text));
            if column + 1 < row.len() {
                let width = widths.get(column).copied().unwrap_or_default();
                text.push_str(&" ".repeat(width.saturating_sub(cell.text.chars().count()) + 3));
            }
        }
        text
    };
    rows.iter().map(line).collect()
}

/// How long ago, in one or two units, as kubectl has it.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{}s", seconds % 60),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => format!("{hours}h{}m", minutes % 60),
        28_800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_colours_do_not_shift_them() {
        let bad = Cell { text: "x".to_owned(), tone: Tone::Bad };
        let rows = [
            vec![Cell::plain("A"), Cell::plain("B")],
            vec![bad, Cell::of(None)],
            vec![Cell::plain("long"), Cell::plain("b")],
        ];
        let mut widths = Vec::new();
        assert_eq!(lines(&rows, &mut widths, Paint(false)), ["A      B", "x      -", "long   b"]);
        assert_eq!(lines(&rows, &mut widths, Paint(true))[1], "\x1b[31mx\x1b[0m      -");
        assert_eq!(lines(&rows[..1], &mut widths, Paint(false)), ["A      B"], "what comes later stands under it");
    }

    #[test]
    fn ages_are_as_exact_as_they_are_of_use() {
        let of = |seconds| age(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
        let told = [0, 119, 125, 660, 10_860, 90_000, 200_000].map(of);
        assert_eq!(told, ["0s", "119s", "2m5s", "11m", "3h1m", "25h", "2d"]);
        assert_eq!(age(Timestamp::from_second(5).unwrap(), Timestamp::UNIX_EPOCH), "0s", "a clock that is behind");
    }
}
