//! An error and why, for a log line or a reason that is kept.

/// An error with its causes, in one line: `cannot write: no space left on device`.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_causes_follow_the_error() {
        assert_eq!(causes(&Outer(std::io::Error::other("the disk is full"))), "cannot write: the disk is full");
    }
}
