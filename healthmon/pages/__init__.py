"""What is public: status pages and badges."""
