//! The value of one setting, as a file, a variable or a flag gives it.

use serde_json::json;

/// What a setting may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing is set and nothing need be.
    Absent,
    Text(String),
    Number(u64),
    List(Vec<String>),
}

/// How a text is read as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    /// Texts, with commas between them where they stand in one text.
    List,
}

impl Kind {
    /// Reads what a variable or a flag says.
    pub(crate) fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::Number => match text.replace('_', "").parse() {
                Ok(number) => Ok(Value::Number(number)),
                Err(_) => Err(format!("{text:?} is no whole number")),
            },
            Self::List => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(Value::List(parts.map(str::to_owned).collect()))
            }
        }
    }

    /// Reads what a file says.
    pub(crate) fn of_file(self, value: &toml::Value) -> Result<Value, String> {
        match (self, value) {
            (Self::Text, toml::Value::String(text)) => Ok(Value::Text(text.clone())),
            (Self::Number, toml::Value::Integer(number)) => {
                u64::try_from(*number).map(Value::Number).map_err(|_| "is below 0".to_owned())
            }
            (Self::List, toml::Value::Array(parts)) => {
                let texts = parts.iter().map(|part| part.as_str().map(str::to_owned));
                let texts: Option<_> = texts.collect();
                texts.map(Value::List).ok_or_else(|| "holds something that is no text".to_owned())
            }
            _ => Err(format!("is to be {}", self.word())),
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a whole number",
            Self::List => "a list of texts",
        }
    }
}

impl Value {
    pub(crate) fn of(text: Option<impl std::fmt::Display>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(text.to_string()))
    }

    pub(crate) fn text(self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(format!("{other} is no text")),
        }
    }

    pub(crate) fn number<T: TryFrom<u64>>(self) -> Result<T, String> {
        match self {
            Self::Number(number) => {
                T::try_from(number).map_err(|_| format!("{number} is too large"))
            }
            other => Err(format!("{other} is no whole number")),
        }
    }

    pub(crate) fn list(self) -> Result<Vec<String>, String> {
        match self {
            Self::List(list) => Ok(list),
            other => Err(format!("{other} is no list")),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Absent => serde_json::Value::Null,
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
            Self::List(list) => json!(list),
        }
    }
}

/// As TOML.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("(none)"),
            Self::Text(text) => write!(f, "{}", toml::Value::from(text.as_str())),
            Self::Number(number) => write!(f, "{number}"),
            Self::List(list) => {
                let texts = list.iter().map(|text| toml::Value::from(text.as_str()));
                write!(f, "{}", toml::Value::Array(texts.collect()))
            }
        }
    }
}
