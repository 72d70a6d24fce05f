//! One line's parts: names, labels, numbers. What both text formats share, and where they differ.

use std::borrow::Cow;

use super::TextFormat;
use crate::labels::LabelBuffer;

/// Text that does not follow its format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fault {
    pub what: &'static str,
    /// Offset in the scrape.
    pub at: usize,
}

/// A place in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'t> {
    text: &'t str,
    pub at: usize,
}

/// A sample as written; its labels are in the buffer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line<'t> {
    /// Offset of its start.
    pub start: usize,
    pub name: Cow<'t, str>,
    pub value: &'t str,
    pub time: Option<&'t str>,
    pub exemplar: Option<Exemplar>,
}

/// An exemplar, as far as rules ask for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    /// Offset of its start.
    pub at: usize,
    /// Characters of its label names and values.
    pub chars: usize,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str, at: usize) -> Cursor<'t> {
        Cursor { text, at }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes past a byte, if it is the next one.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault { what, at: self.at })
    }

    /// Goes past blanks.
    #[inline]
    pub(super) fn blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte == b' ' || byte == b'\t') {
            self.at += 1;
        }
    }

    /// The bytes up to the first that does not belong. `belongs` must treat all bytes of a character alike.
    #[inline]
    pub(super) fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &'t str {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        self.at += rest.iter().position(|byte| !belongs(*byte)).unwrap_or(rest.len());
        &self.text[start..self.at]
    }

    /// A metric's name; empty if there is none.
    pub(super) fn metric_name(&mut self) -> &'t str {
        if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return "";
        }
        self.take(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
    }

    /// Ends a line; at the end of the text it may lack its line feed.
    pub(super) fn end_line(&mut self, what: &'static str) -> Result<(), Fault> {
        if self.eat(b'\n') || self.is_at_end() { Ok(()) } else { self.fault(what) }
    }

    /// One sample.
    pub(super) fn sample(&mut self, format: TextFormat, labels: &mut LabelBuffer<'t>) -> Result<Line<'t>, Fault> {
        labels.clear();
        let start = self.at;
        match format {
            TextFormat::Prometheus004 => self.lenient(start, labels),
            TextFormat::OpenMetrics => self.strict(start, labels),
        }
    }

    /// As Prometheus reads text 0.0.4 (`model/textparse/promlex.l`): blanks anywhere between parts.
    fn lenient(&mut self, start: usize, labels: &mut LabelBuffer<'t>) -> Result<Line<'t>, Fault> {
        self.blanks();
        let mut name = Cow::Borrowed(self.metric_name());
        if name.is_empty() && self.peek() != Some(b'{') {
            return self.fault("a metric's name is expected");
        }
        self.blanks();
        if self.eat(b'{') {
            self.blanks();
            while !self.eat(b'}') {
                let quoted = self.peek() == Some(b'"');
                let label = if quoted { self.quoted(true)? } else { Cow::Borrowed(self.label_name()?) };
                self.blanks();
                if quoted && name.is_empty() && self.peek() != Some(b'=') {
                    // A name beyond the old characters stands in the braces.
                    name = label;
                } else {
                    self.label_value(label, true, labels)?;
                }
                self.blanks();
                if self.eat(b',') {
                    self.blanks();
                }
            }
        }
        if name.is_empty() {
            return self.fault("a metric's name is expected");
        }
        self.blanks();
        let value = self.take(|byte| !matches!(byte, b'{' | b' ' | b'\t' | b'\n'));
        if value.is_empty() {
            return self.fault("a value is expected");
        }
        self.blanks();
        let at = self.at;
        self.eat(b'-');
        self.take(|byte| byte.is_ascii_digit());
        let time = Some(&self.text[at..self.at]).filter(|time| !time.is_empty());
        self.blanks();
        self.end_line("a timestamp in milliseconds or the end of the line is expected")?;
        Ok(Line { start, name, value, time, exemplar: None })
    }

    /// As OpenMetrics 1.0 has it: single spaces, nothing optional.
    fn strict(&mut self, start: usize, labels: &mut LabelBuffer<'t>) -> Result<Line<'t>, Fault> {
        let name = self.metric_name();
        if name.is_empty() {
            return self.fault("a metric's name is expected");
        }
        if self.peek() == Some(b'{') {
            self.strict_labels(|name, value| labels.push(name, value))?;
        }
        let value = self.after_space("a space and a value are expected")?;
        let mut line = Line { start, name: Cow::Borrowed(name), value, time: None, exemplar: None };
        if self.rest().starts_with(' ') && !self.rest().starts_with(" #") {
            line.time = Some(self.after_space("a timestamp is expected")?);
        }
        if self.rest().starts_with(" # ") {
            self.at += 3;
            let (at, mut chars) = (self.at, 0);
            self.strict_labels(|name, value| chars += name.chars().count() + value.chars().count())?;
            line.exemplar = Some(Exemplar { at, chars });
            let value = self.after_space("an exemplar's value is expected")?;
            self.real(value, "an exemplar's value is no number")?;
            if self.peek() == Some(b' ') {
                let time = self.after_space("an exemplar's timestamp is expected")?;
                let time = self.real(time, "an exemplar's timestamp is no number")?;
                if !time.is_finite() {
                    return self.fault("an exemplar's timestamp is no time");
                }
            }
        }
        if self.eat(b'\n') { Ok(line) } else { self.fault("the end of the line is expected") }
    }

    fn after_space(&mut self, what: &'static str) -> Result<&'t str, Fault> {
        let found = if self.eat(b' ') { self.take(|byte| byte != b' ' && byte != b'\n') } else { "" };
        if found.is_empty() { self.fault(what) } else { Ok(found) }
    }

    fn real(&self, text: &str, what: &'static str) -> Result<f64, Fault> {
        text.parse().or_else(|_| self.fault(what))
    }

    fn strict_labels(&mut self, mut with: impl FnMut(Cow<'t, str>, Cow<'t, str>)) -> Result<(), Fault> {
        if !self.eat(b'{') {
            return self.fault("`{` is expected");
        }
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            let name = self.label_name()?;
            if !self.eat(b'=') {
                return self.fault("`=` is expected");
            }
            with(Cow::Borrowed(name), self.quoted(false)?);
            if self.eat(b'}') {
                return Ok(());
            }
            if !self.eat(b',') {
                return self.fault("`,` or `}` is expected");
            }
        }
    }

    fn label_name(&mut self) -> Result<&'t str, Fault> {
        let is_digit = self.peek().is_some_and(|byte| byte.is_ascii_digit());
        let name = if is_digit { "" } else { self.take(|byte| byte.is_ascii_alphanumeric() || byte == b'_') };
        if name.is_empty() { self.fault("a label's name is expected") } else { Ok(name) }
    }

    fn label_value(&mut self, name: Cow<'t, str>, multiline: bool, labels: &mut LabelBuffer<'t>) -> Result<(), Fault> {
        if !self.eat(b'=') {
            return self.fault("`=` is expected");
        }
        self.blanks();
        labels.push(name, self.quoted(multiline)?);
        Ok(())
    }

    /// Text in double quotes. `\\`, `\"` and `\n` are escapes; of any other the backslash stays, as in Prometheus.
    fn quoted(&mut self, multiline: bool) -> Result<Cow<'t, str>, Fault> {
        if !self.eat(b'"') {
            return self.fault("a value in double quotes is expected");
        }
        let plain = self.take(|byte| !matches!(byte, b'"' | b'\\') && (multiline || byte != b'\n'));
        if self.eat(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    let escaped = self.rest()[1..].chars().next();
                    match escaped {
                        Some('n') => text.push('\n'),
                        Some(escaped @ ('\\' | '"')) => text.push(escaped),
                        Some(other) if other != '\n' => text.extend(['\\', other]),
                        _ => return self.fault("a value in quotes does not end"),
                    }
                    self.at += 1 + escaped.map_or(0, char::len_utf8);
                }
                _ => return self.fault("a value in quotes does not end"),
            }
            text.push_str(self.take(|byte| !matches!(byte, b'"' | b'\\') && (multiline || byte != b'\n')));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use airan_model::limits::Limits;

    fn read(format: TextFormat, text: &str) -> Result<(Line<'_>, Vec<(String, String)>), Fault> {
        let mut labels = LabelBuffer::new(&Limits::DOCUMENTED, 0);
        let mut cursor = Cursor::new(text, 0);
        let line = cursor.sample(format, &mut labels)?;
        assert!(cursor.is_at_end(), "{text}");
        let pairs = labels.kept().iter().map(|label| (label.name.to_string(), label.value.to_string())).collect();
        Ok((line, pairs))
    }

    /// Scenario: the ways real exporters write a sample, and ways only text 0.0.4 allows.
    #[test]
    fn text_004_is_read_as_prometheus_reads_it() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, name, value, time, labels) in [
            ("a 1\n", "a", "1", None, vec![]),
            ("a 1", "a", "1", None, vec![]),
            ("  a:b_c \t 1e+06 \t1700000000000 \n", "a:b_c", "1e+06", Some("1700000000000"), vec![]),
            ("a{}1\n", "a", "1", None, vec![]),
            ("a{b=\"c\"}1 -5\n", "a", "1", Some("-5"), vec![pair("b", "c")]),
            ("a { b = \"c\" , d=\"\" , } NaN\n", "a", "NaN", None, vec![pair("b", "c")]),
            ("a{gpu=\"0\", UUID=\"GPU-1\"} 139\n", "a", "139", None, vec![pair("gpu", "0"), pair("UUID", "GPU-1")]),
            ("a{b=\"1\" c=\"2\"} 3\n", "a", "3", None, vec![pair("b", "1"), pair("c", "2")]),
            (
                "a{b=\"\\\\ \\\" \\n \\d {},=\u{e9}\"} +Inf\n",
                "a",
                "+Inf",
                None,
                vec![pair("b", "\\ \" \n \\d {},=\u{e9}")],
            ),
            ("a{b=\"x\ny\"} 1\n", "a", "1", None, vec![pair("b", "x\ny")]),
            ("{\"http.status\",\"l.m\"=\"v\"} 2\n", "http.status", "2", None, vec![pair("l.m", "v")]),
        ] {
            let (line, read) =
                read(TextFormat::Prometheus004, text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
            assert_eq!((&*line.name, line.value, line.time, read), (name, value, time, labels), "{text}");
        }
    }

    #[test]
    fn bad_lines_are_refused_with_their_place() {
        for (text, what, at) in [
            ("this is {not metrics\n", "timestamp", 8),
            ("1a 1\n", "name is expected", 0),
            ("a\n", "value is expected", 1),
            ("a{b=\"c\" 1\n", "label's name", 8),
            ("a{b=\"c} 1\n", "does not end", 10),
            ("a{b=c} 1\n", "double quotes", 4),
            ("a{b} 1\n", "`=`", 3),
            ("a{1=\"c\"} 1\n", "label's name", 2),
            ("a 1 2 3\n", "timestamp", 6),
            ("a 1 x\n", "timestamp", 4),
            ("a 1 # {} 1\n", "timestamp", 4),
            ("{b=\"c\"} 1\n", "name is expected", 7),
        ] {
            let fault = read(TextFormat::Prometheus004, text).map(|_| ()).unwrap_err();
            assert!(fault.what.contains(what) && fault.at == at, "{text}: {fault:?}");
        }
    }

    #[test]
    fn open_metrics_allows_one_way_to_write_a_sample() {
        for text in [
            "a 1\n",
            "a{} 1 0.5\n",
            "a{b=\"c\",d=\"\\n\"} -1e3\n",
            "a_total 1 # {} 1\n",
            "a_total 1 2 # {x=\"y\"} 1 3.5\n",
        ] {
            read(TextFormat::OpenMetrics, text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
        }
        for text in [
            "a 1",
            " a 1\n",
            "a  1\n",
            "a 1 \n",
            "a\t1\n",
            "a{}1\n",
            "a{b=\"c\",} 1\n",
            "a{ b=\"c\"} 1\n",
            "a{b=\"x\ny\"} 1\n",
            "a{b=\"c\"d=\"e\"} 1\n",
            "a 1 2 3\n",
            "a 1 # {}1\n",
            "a 1# {} 1\n",
            "a 1 # {} 1 NaN\n",
            "a 1 #\n",
            "a 1 # {} 1 \n",
        ] {
            assert!(read(TextFormat::OpenMetrics, text).is_err(), "{text:?}");
        }
    }
}
