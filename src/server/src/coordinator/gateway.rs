//! What the wire asks of the Coordinator: users and sessions.

use std::sync::Arc;

use async_trait::async_trait;
use neorunbase_frontend::scram::ScramVerifier;
use neorunbase_frontend::{Gateway, Session, Startup};
use neorunbase_types::{Result, SqlError, SqlState};

use super::session::CoordinatorSession;
use super::{Coordinator, DATABASE};

/// [`Gateway`] of the Coordinator.
pub struct CoordinatorGateway(pub Arc<Coordinator>);

#[async_trait]
impl Gateway for CoordinatorGateway {
    async fn scram_verifier(&self, user: &str) -> Result<Option<ScramVerifier>> {
        self.0.metadata.current().await?;
        let catalog = self.0.metadata.snapshot();
        match catalog.users.get(user) {
            None => Ok(None),
            Some(user) => ScramVerifier::parse(&user.verifier)
                .map(Some)
                .ok_or_else(|| SqlError::internal("a stored password verifier is unreadable")),
        }
    }

    async fn open_session(&self, startup: Startup) -> Result<Box<dyn Session>> {
        // Tools that are given no database name ask for one called like the user.
        if startup.database != DATABASE && startup.database != startup.user && startup.database != "postgres"
        {
            return Err(SqlError::new(
                SqlState::INVALID_CATALOG_NAME,
                format!("database \"{}\" does not exist", startup.database),
            )
            .with_hint(format!("connect to database \"{DATABASE}\"")));
        }
        Ok(Box::new(CoordinatorSession::new(self.0.clone(), startup)))
    }
}
