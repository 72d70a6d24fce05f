//! `airan completion`: the command line as a shell's completion script, on stdout.
//!
//! Made from the parser itself, so it offers what this binary takes and nothing else.

use std::io::Write;

use anyhow::Result;
use clap_complete::Shell;

/// Arguments of `airan completion`.
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// The shell that will read it
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs it.
pub fn run(args: &CompletionArgs, command: clap::Command) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(&script(args.shell, command))?;
    Ok(out.flush()?)
}

/// The script. Made in memory: its writer panics where a write fails, as it does when a reader of stdout leaves.
fn script(shell: Shell, mut command: clap::Command) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use clap::{CommandFactory, ValueEnum};

    use super::*;
    use crate::cli::Cli;

    fn bash(arguments: &[&str]) -> Output {
        Command::new("bash").args(["--noprofile", "--norc"]).args(arguments).output().expect("bash runs")
    }

    /// What bash offers after these words, the last of which is only begun.
    fn offered(script: &str, words: &[&str]) -> Vec<String> {
        let (last, line) = (words.len() - 1, words.join(" "));
        let ask = format!(
            r#". "{script}"; COMP_WORDS=({line}); COMP_CWORD={last}; _airan airan "{}" "{}"; printf '%s\n' "${{COMPREPLY[@]}}""#,
            words[last],
            words[last - 1],
        );
        let out = bash(&["-c", &ask]);
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Scenario: bash reads the script, and somebody presses Tab after `airan la`, `airan lake ch` and `--format `.
    /// Guarantees: bash finds no error in it; it offers subcommands of both levels and the values of an option.
    #[test]
    fn bash_completes_commands_and_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("airan.bash");
        std::fs::write(&path, script(Shell::Bash, Cli::command())).unwrap();
        let path = path.to_str().unwrap();
        let checked = bash(&["-n", path]);
        assert!(checked.status.success() && checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));

        assert_eq!(offered(path, &["airan", "la"]), ["lake", "lag"]);
        assert_eq!(offered(path, &["airan", "lake", "ch"]), ["check"]);
        assert_eq!(offered(path, &["airan", "lag", "--format", "t"]), ["table"]);
        assert!(offered(path, &["airan", "completion", ""]).contains(&"zsh".to_owned()));
    }

    /// Guarantees: the script of each shell knows each command.
    #[test]
    fn every_shell_has_a_script_with_every_command() {
        let command = Cli::command();
        for shell in Shell::value_variants() {
            let text = String::from_utf8(script(*shell, command.clone())).unwrap();
            for name in command.get_subcommands().map(clap::Command::get_name) {
                assert!(text.contains(name), "{shell}: {name}");
            }
        }
    }
}
