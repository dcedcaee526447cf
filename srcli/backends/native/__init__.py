"""Our own compiled code: LAPAR and AWSRN on a CPU."""
