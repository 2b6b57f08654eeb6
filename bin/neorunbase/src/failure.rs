//! How a command ends when it cannot go on: one line for the user and an exit code.

use std::process::ExitCode;

use neorunbase_kms::KeyError;
use neorunbase_server::daemon::StartError;
use neorunbase_server::datanode;

/// Something that the user has to change before the command can work: exit code 2, like a wrong option.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

const FAILED: u8 = 1;
const REFUSED: u8 = 2;

/// Prints the error as one line and says how to exit.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("neorunbase: {}", one_line(error));
    ExitCode::from(exit_code(error))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let refused = error.chain().any(|cause| {
        cause.is::<Refusal>()
            || is_other_disk(cause)
            || matches!(
                key_error(cause),
                Some(KeyError::WrongMasterKey { .. } | KeyError::MasterKeyTooShort { .. })
            )
    });
    if refused { REFUSED } else { FAILED }
}

fn is_other_disk(cause: &(dyn std::error::Error + 'static)) -> bool {
    let cause = cause.downcast_ref::<StartError>();
    matches!(
        cause,
        Some(StartError::DataNode(datanode::StartError::OtherDisk { .. }))
    )
}

/// Transparent errors do not show what they hold as a cause.
fn key_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a KeyError> {
    match cause.downcast_ref::<StartError>() {
        Some(StartError::Key(error) | StartError::DataNode(datanode::StartError::Key(error))) => Some(error),
        _ => cause.downcast_ref::<KeyError>(),
    }
}

/// The error and its causes. Many errors already end in their cause's words; those are not said twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let words = cause.to_string().replace('\n', " ");
        if !line.ends_with(&words) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&words);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_wrong_master_key_is_a_refusal_wherever_it_was_found() {
        let wrong = KeyError::WrongMasterKey {
            path: "keyring".to_owned(),
        };
        let error = Err::<(), _>(wrong)
            .context("data directory ./data")
            .expect_err("made as an error");
        assert_eq!(exit_code(&error), REFUSED);
        assert_eq!(
            one_line(&error),
            "data directory ./data: wrong master key: keyring was sealed under another one"
        );
    }

    #[test]
    fn a_wrong_master_key_is_seen_through_the_roles_errors() {
        let wrong = || KeyError::WrongMasterKey {
            path: "keyring".to_owned(),
        };
        assert_eq!(exit_code(&StartError::Key(wrong()).into()), REFUSED);
        let of_data_node = StartError::DataNode(datanode::StartError::Key(wrong()));
        assert_eq!(exit_code(&of_data_node.into()), REFUSED);
    }

    #[test]
    fn other_errors_are_failures() {
        assert_eq!(exit_code(&anyhow::anyhow!("disk on fire")), FAILED);
    }
}
