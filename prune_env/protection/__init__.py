"""What may not be touched: units whose feature maps show that they are sensitive, with the evidence."""
