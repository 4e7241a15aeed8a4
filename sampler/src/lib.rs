//! Latent arithmetic that gives the same bits everywhere.
