//! Empty on purpose: the package exists so that its dependency's source can be fetched and located.
