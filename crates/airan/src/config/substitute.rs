//! `${VAR}`, `${VAR:-default}` and `${file:PATH}` inside a value.
//!
//! As in a shell, `:-` also stands in for a variable that is empty. `$${` is a plain `${`. What was substituted is never
//! substituted again.

/// Where values come from: the environment and files, or a test's.
pub(crate) struct Sources<'a> {
    /// An environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file.
    pub file: &'a dyn Fn(&str) -> std::io::Result<String>,
}

/// Reads the environment of this process and its files.
pub(crate) const PROCESS: Sources<'static> =
    Sources { variable: &|name| std::env::var(name).ok(), file: &|path| std::fs::read_to_string(path) };

/// Why a `${…}` has no value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubstituteError {
    /// No such variable, and no default.
    #[error("the environment variable `{0}` is not set: set it, or give a default with ${{{0}:-…}}")]
    Unset(String),
    /// The file cannot be read.
    #[error("cannot read {path} for ${{file:…}}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        problem: String,
    },
    /// No closing brace.
    #[error("`${{` without a `}}`; write $${{ for a plain ${{")]
    Open,
    /// Something else between the braces.
    #[error("`${{{0}}}` is not understood: write ${{VAR}}, ${{VAR:-default}} or ${{file:PATH}}")]
    Form(String),
}

/// The text with its `${…}` replaced; None where it has none.
pub(crate) fn substitute(text: &str, sources: &Sources<'_>) -> Result<Option<String>, SubstituteError> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or(SubstituteError::Open)?;
        out.push_str(&value_of(&inside[..end], sources)?);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn value_of(form: &str, sources: &Sources<'_>) -> Result<String, SubstituteError> {
    if let Some(path) = form.strip_prefix("file:") {
        let read = (sources.file)(path);
        let text = read.map_err(|e| SubstituteError::File { path: path.to_owned(), problem: e.to_string() })?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    let (name, default) = match form.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (form, None),
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    if !is_name(name) {
        return Err(SubstituteError::Form(form.to_owned()));
    }
    match ((sources.variable)(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(SubstituteError::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<String>, SubstituteError> {
        let variable = |name: &str| match name {
            "HOST" => Some("edge-1".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        };
        let file = |path: &str| match path {
            "/run/secret" => Ok("hunter2\n".to_owned()),
            _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        };
        substitute(text, &Sources { variable: &variable, file: &file })
    }

    #[test]
    fn variables_defaults_and_files_are_put_in() {
        for (text, value) in [
            ("${HOST}", "edge-1"),
            ("http://${HOST}:4318/${NONE:-x}", "http://edge-1:4318/x"),
            ("${NONE:-}", ""),
            ("${EMPTY:-full}", "full"),
            ("${EMPTY}", ""),
            ("${file:/run/secret}", "hunter2"),
            ("$${HOST}", "${HOST}"),
            ("a$${b}${HOST}", "a${b}edge-1"),
            ("${TRICK}", "${HOST}"),
        ] {
            assert_eq!(of(text).unwrap().as_deref(), Some(value), "{text}");
        }
        assert_eq!(of("plain $HOST, 5 $ and }").unwrap(), None);
    }

    #[test]
    fn what_has_no_value_is_named() {
        assert_eq!(of("x${NONE}"), Err(SubstituteError::Unset("NONE".to_owned())));
        assert_eq!(of("${HOST"), Err(SubstituteError::Open));
        for form in ["", "a b", "1A", "HOST:=x"] {
            assert_eq!(of(&format!("${{{form}}}")), Err(SubstituteError::Form(form.to_owned())));
        }
        let gone = of("${file:/gone}").unwrap_err().to_string();
        assert!(gone.contains("/gone") && !gone.contains("hunter2"), "{gone}");
        assert!(of("${NONE}").unwrap_err().to_string().contains("${NONE:-…}"));
    }
}
