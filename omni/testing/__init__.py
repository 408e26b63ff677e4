"""What tests need: private servers, factories. Never imported by the product."""
