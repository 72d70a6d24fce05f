//! `airan man`: the help of every command as manual pages, one file each, in a folder.
//!
//! Made from the parser itself, so a page says what `--help` of this binary says.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap_mangen::Man;

/// Arguments of `airan man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for the pages; it is made where it is missing, pages in it are replaced
    folder: PathBuf,
}

/// Runs it.
pub fn run(args: &ManArgs, command: clap::Command) -> Result<()> {
    let pages = write_pages(&args.folder, command)?;
    let first = args.folder.join("airan.1");
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{pages} pages in {}; to read one: man -l {}", args.folder.display(), first.display())?)
}

/// Writes the page of each command and subcommand, and returns how many there are.
fn write_pages(folder: &Path, command: clap::Command) -> Result<usize> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    // `help` says the same again and would have a page per command.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!("airan {}", command.get_version().unwrap_or_default());
    write_page(folder, &source, &command)
}

fn write_page(folder: &Path, source: &str, command: &clap::Command) -> Result<usize> {
    let page = Man::new(command.clone()).source(source);
    let mut text = Vec::new();
    page.render(&mut text)?;
    let path = folder.join(page.get_filename());
    let text = set_code(&String::from_utf8(text)?);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    below.map(|command| write_page(folder, source, command)).sum::<Result<usize>>().map(|pages| pages + 1)
}

/// Sets what stands between backticks, as --help has it, in bold instead, as manual pages have it.
fn set_code(page: &str) -> String {
    let line = |line: &str| {
        let parts: Vec<&str> = line.split('`').collect();
        // A pair makes two more parts; a backtick alone is itself.
        if parts.len().is_multiple_of(2) {
            return format!("{line}\n");
        }
        let set = |(at, part): (usize, &&str)| if at % 2 == 1 { format!(r"\fB{part}\fR") } else { (*part).to_owned() };
        parts.iter().enumerate().map(set).chain(["\n".to_owned()]).collect()
    };
    page.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// The names that pages must have: `airan.1`, `airan-lake.1`, `airan-lake-files.1`, …
    fn expected(prefix: &str, command: &clap::Command, names: &mut BTreeSet<String>) {
        names.insert(format!("{prefix}.1"));
        for command in command.get_subcommands() {
            expected(&format!("{prefix}-{}", command.get_name()), command, names);
        }
    }

    /// Scenario: pages into a folder that is not there yet, then once more.
    /// Guarantees: a page for each command of each level and no other file; a page has the command's name, its text and its options.
    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("man/man1");
        let mut names = BTreeSet::new();
        expected("airan", &Cli::command(), &mut names);
        assert!(names.contains("airan-lake-check.1"), "{names:?}");
        for _ in 0..2 {
            assert_eq!(write_pages(&pages, Cli::command()).unwrap(), names.len());
            let entries = std::fs::read_dir(&pages).unwrap();
            let found: BTreeSet<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            assert_eq!(found, names);
        }

        let page = std::fs::read_to_string(pages.join("airan-backfill.1")).unwrap();
        assert!(page.contains(".TH airan-backfill 1"), "{page}");
        for text in ["Computes windows again", r"\-\-from", r"\-\-offline"] {
            assert!(page.contains(text), "{text} in {page}");
        }
        assert!(page.contains(r"\fB<table>_latest\fR"), "{page}");
        for name in names {
            let page = std::fs::read_to_string(pages.join(&name)).unwrap();
            assert!(!page.contains('`'), "{name}: {page}");
        }
        let first = std::fs::read_to_string(pages.join("airan.1")).unwrap();
        assert!(first.contains("airan\\-backfill(1)"), "{first}");
    }

    #[test]
    fn code_is_bold_and_a_lone_backtick_stays() {
        let page = set_code(".TH x 1\nas `a \\-b` and `c`\nit`s\n");
        assert_eq!(page, ".TH x 1\nas \\fBa \\-b\\fR and \\fBc\\fR\nit`s\n");
    }

    /// Scenario: a file stands where the folder should be.
    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = write_pages(&file.path().join("man"), Cli::command()).unwrap_err();
        assert!(error.to_string().contains("cannot make the folder"), "{error}");
    }
}
