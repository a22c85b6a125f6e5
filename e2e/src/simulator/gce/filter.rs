//! The part of the API's list filters that the operator and people at a prompt use.
//!
//! `FIELD = VALUE` and `FIELD != VALUE`, the value quoted or not, joined by `AND` or just set side by side in
//! parentheses. Everything else is refused: a filter that is half understood would answer wrongly.

use super::errors::Trouble;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

/// All of these hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Equal,
    Unequal,
    Open,
    Close,
}

/// Fields of an address that can be asked for; labels come as `labels.NAME`.
const FIELDS: &[&str] = &["name", "address", "addressType", "status", "networkTier", "ipVersion", "region"];

impl Filter {
    pub fn parse(text: &str) -> Result<Self, Trouble> {
        let refuse = || {
            Trouble::new(
                400,
                "invalid",
                &format!("Invalid value for field 'filter': '{text}'. Invalid list filter expression."),
            )
        };
        let tokens = tokens(text).ok_or_else(refuse)?;
        let mut terms = Vec::new();
        let mut depth = 0_usize;
        let mut rest = tokens.into_iter();
        while let Some(token) = rest.next() {
            match token {
                Token::Open => depth = depth.saturating_add(1),
                Token::Close => depth = depth.checked_sub(1).ok_or_else(refuse)?,
                Token::Word(word) if word == "AND" && !terms.is_empty() => {}
                Token::Word(field) if FIELDS.contains(&field.as_str()) || field.starts_with("labels.") => {
                    let equal = match rest.next() {
                        Some(Token::Equal) => true,
                        Some(Token::Unequal) => false,
                        _ => return Err(refuse()),
                    };
                    let Some(Token::Word(value) | Token::Quoted(value)) = rest.next() else {
                        return Err(refuse());
                    };
                    terms.push(Term { field, equal, value });
                }
                _ => return Err(refuse()),
            }
        }
        if depth == 0 { Ok(Self { terms }) } else { Err(refuse()) }
    }

    /// Whether a resource with these values passes.
    pub fn passes(&self, value_of: impl Fn(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|term| (value_of(&term.field).as_ref() == Some(&term.value)) == term.equal)
    }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            ' ' => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            '=' => tokens.push(Token::Equal),
            '!' => {
                rest.next_if_eq(&'=')?;
                tokens.push(Token::Unequal);
            }
            '"' => {
                let mut quoted = String::new();
                loop {
                    match rest.next()? {
                        '"' => break,
                        char => quoted.push(char),
                    }
                }
                tokens.push(Token::Quoted(quoted));
            }
            char if is_word(char) => {
                let mut word = String::from(char);
                while let Some(char) = rest.next_if(|char| is_word(*char)) {
                    word.push(char);
                }
                tokens.push(Token::Word(word));
            }
            _ => return None,
        }
    }
    Some(tokens)
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || "._-/:".contains(char)
}
