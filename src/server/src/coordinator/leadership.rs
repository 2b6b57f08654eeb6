//! The Coordinator's office: whoever is elected leads the catalog and hands out timestamps.

use std::sync::Arc;
use std::time::Duration;

use neorunbase_catalog::CatalogSnapshot;
use neorunbase_coordination::{Election, Leadership};
use neorunbase_world::fault::planted;

use super::Coordinator;
use super::dropped_storages::drop_forever;
use super::metadata::LeadError;
use super::oracle::Oracle;

const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// A Coordinator that must not lead leaves the office to others for so long.
const ABSTAIN: Duration = Duration::from_millis(1_000);

/// Why an elected Coordinator did not take office.
#[derive(Debug, thiserror::Error)]
enum OfficeError {
    #[error(transparent)]
    Catalog(#[from] LeadError),
    #[error("the timestamp oracle: {0}")]
    Oracle(#[from] neorunbase_world::coordination::CoordinationError),
}

/// Stands for election, leads for as long as that lasts, and stands again.
pub async fn run(
    coordinator: Arc<Coordinator>,
    oracle: Arc<Oracle>,
    election: Election,
    admin_password: Option<String>,
) {
    let clock = coordinator.world.clock.clone();
    loop {
        let leadership = match election.campaign().await {
            Ok(leadership) => leadership,
            Err(error) => {
                tracing::warn!(%error, "cannot campaign");
                clock.sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        let pause = match lead(&coordinator, &oracle, &leadership, admin_password.as_deref()).await {
            Ok(()) => RETRY_PAUSE,
            Err(error) => {
                tracing::warn!(%error, "elected, but cannot lead");
                ABSTAIN
            }
        };
        coordinator.metadata.stop_leading();
        if let Err(error) = leadership.resign().await {
            tracing::debug!(%error, "the office is free once the session has ended");
        }
        clock.sleep(pause).await;
    }
}

/// Returns when leadership is lost or in doubt.
async fn lead(
    coordinator: &Coordinator,
    oracle: &Oracle,
    leadership: &Leadership,
    admin_password: Option<&str>,
) -> Result<(), OfficeError> {
    let metadata = &coordinator.metadata;
    let takeover = async {
        metadata.take_office().await?;
        // In what is published first: a client may log in as soon as there is a catalog.
        let first_user =
            |catalog: &mut CatalogSnapshot| coordinator.ensure_first_user(catalog, admin_password);
        let catalog = async { metadata.begin(first_user).await.map_err(OfficeError::from) };
        let timestamps = async { oracle.take_over().await.map_err(OfficeError::from) };
        futures::future::try_join(catalog, timestamps).await?;
        Ok::<(), OfficeError>(())
    };
    match leadership.while_held(takeover).await {
        None => return Ok(()),
        Some(taken) => taken?,
    }
    if let Some(term) = metadata.leading() {
        // Followers learn of the term with its first catalog; nobody sends that here.
        coordinator.table_holds.release_before(term);
    }
    tracing::info!(epoch = leadership.epoch, "elected as leader of the coordinators");
    tokio::select! {
        biased;
        () = leadership.lost() => {}
        () = metadata.not_leading() => {}
        // A predecessor's last write came late: nobody hands out timestamps before the next term of office.
        () = oracle.deposed(), if !planted("oracle-deposed-for-ever") => {}
        never = drop_forever(coordinator) => match never {},
    }
    tracing::warn!(
        epoch = leadership.epoch,
        "leadership of the coordinators is in doubt; campaigning again"
    );
    Ok(())
}
